"""The project's commit and its dirty flag, from a real repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cellfleet.lineage import project_state


def git(folder: Path, *args: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(["git", "-C", str(folder), *identity, *args], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_commit_and_dirty_flag(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert project_state(tmp_path).commit is None
    (tmp_path / "cellfleet.toml").write_text("", encoding="utf-8")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    clean = project_state(tmp_path)
    assert clean.commit == git(tmp_path, "rev-parse", "HEAD")
    assert clean.dirty is False
    (tmp_path / "cellfleet.toml").write_text("# changed", encoding="utf-8")
    assert project_state(tmp_path).dirty is True
