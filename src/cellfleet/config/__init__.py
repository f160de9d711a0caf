"""Settings from cellfleet.toml, then the environment, then flags; merged once, strictly typed.

>>> from pathlib import Path
>>> load_project(Path(), environ={}, overrides=["training.epochs=3"]).settings.training.epochs
3
"""

from cellfleet.config.project import ENV_PREFIX, PROJECT_FILE, Project, Settings, load_project, nearest

__all__ = ["ENV_PREFIX", "PROJECT_FILE", "Project", "Settings", "load_project", "nearest"]
