"""The agent: checks, downloads, tests, activates, watches and rolls back updates."""
