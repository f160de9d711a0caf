"""What instruments send: telemetry, files in parts, results."""
