"""The API: one router per topic. Everything that decides is in the services; nothing here knows a table."""
