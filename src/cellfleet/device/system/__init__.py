"""System services of an instrument: its folder, identity, locks, logs, and small files that survive a power cut."""
