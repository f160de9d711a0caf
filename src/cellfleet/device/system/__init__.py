"""The host under an instrument: its folder, its identity, locks, logs and small files that survive a power cut."""
