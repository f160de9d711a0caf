"""Simulators: the outside world of an instrument in memory, through the real ports."""
