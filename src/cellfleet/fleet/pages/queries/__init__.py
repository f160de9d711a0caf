"""What the pages read from the database."""
