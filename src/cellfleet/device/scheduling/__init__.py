"""Schedules frames on segmenters and records their outcomes."""
