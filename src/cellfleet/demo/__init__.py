"""The whole story as a journey through the commands that users type."""
