"""Commands of the device engineer: an instrument."""
