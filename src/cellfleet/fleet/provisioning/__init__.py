"""How instruments join the fleet: claims, devices, groups."""
