"""Connection to the fleet server: desired state, reports, telemetry and uploads."""
