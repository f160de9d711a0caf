"""The state of the user's project and of the environment: what a training run stands on."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from cellfleet.canonical import digest_of


@dataclass(frozen=True)
class ProjectState:
    """Commit of the user's project.

    Attributes:
        commit: 40 hex digits, or None when the project is not in git (or has no commit yet).
        dirty: tracked or unignored files differ from that commit; None when ``commit`` is None.
    """

    commit: str | None
    dirty: bool | None

    def describe(self) -> str:
        """One phrase for people: the commit, a dirty mark, or ``no git``."""
        if self.commit is None:
            return "no git"
        return f"{self.commit[:12]}{' + uncommitted changes' if self.dirty else ''}"


def project_state(root: Path) -> ProjectState:
    """Ask git for the commit of the project in ``root``; a project without git is said to be so, not an error."""
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return ProjectState(None, None)
    status = _git(root, "status", "--porcelain", "--untracked-files=normal", "--", ".")
    return ProjectState(commit.strip(), bool(status and status.strip()))


def environment() -> dict[str, str]:
    """Names (normalised as in PEP 503) and versions of all installed distributions."""
    return {
        re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower(): d.version
        for d in metadata.distributions()
        if d.metadata["Name"]
    }


def environment_digest() -> str:
    """SHA-256 over the names and versions of all installed distributions."""
    return digest_of(environment())


def _git(root: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
