"""Commands of the fleet operator: server, devices, people, trust, releases, deployments."""
