"""Commands of the device engineer."""
