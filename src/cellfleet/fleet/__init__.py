"""The control plane: store, API, rollout, lineage and web pages of a fleet."""
