"""The API: one router per topic. The services decide; no router knows a table."""
