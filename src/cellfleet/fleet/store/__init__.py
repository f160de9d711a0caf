"""The database of the fleet server: models, sessions, migrations."""
