"""Prints what the tests reached, room by room (`make coverage` runs them first).

    .venv/bin/python scripts/coverage_rooms.py [ROOM ...]

Without arguments one line per room: its lines and branches, and the share that was reached. With rooms, such as `trust` or
`device/update`, each branch of them that no test took as well: the file, the line, and the line that was never gone to.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "build" / "coverage" / "report.json"
SRC = "src/cellfleet/"


@dataclass
class Room:
    """What was counted in a folder of the source."""

    lines: int = 0
    reached: int = 0
    branches: int = 0
    taken: int = 0

    def add(self, summary: dict[str, Any]) -> None:
        """Count a file."""
        self.lines += summary["num_statements"]
        self.reached += summary["covered_lines"]
        self.branches += summary["num_branches"]
        self.taken += summary["covered_branches"]


def main(wanted: list[str]) -> int:
    """Read the measurement and print it."""
    subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", REPORT], cwd=ROOT, check=True)
    files = {k.partition(SRC)[2]: v for k, v in json.loads(REPORT.read_bytes())["files"].items() if SRC in k}
    unknown = [w for w in wanted if not any(name.startswith(f"{w}/") for name in files)]
    if unknown:
        sys.stderr.write(f"there is no room {unknown[0]}\n")
        return 2
    rooms: dict[str, Room] = defaultdict(Room)
    for name, facts in files.items():
        rooms[room_of(name)].add(facts["summary"])
        rooms["all"].add(facts["summary"])
    sys.stdout.write(f"{'room':24} {'lines':>7} {'reached':>8} {'branches':>9} {'taken':>7}\n")
    for name, room in sorted(rooms.items(), key=lambda item: (item[0] == "all", item[0])):
        shares = f"{share(room.reached, room.lines)} {room.branches:9} {share(room.taken, room.branches, 7)}"
        sys.stdout.write(f"{name:24} {room.lines:7} {shares}\n")
    for name, facts in sorted(files.items()):
        if any(name.startswith(f"{w}/") for w in wanted):
            for line, target in facts["missing_branches"]:
                where = f"line {target}" if target > 0 else "the end"
                sys.stdout.write(f"{SRC}{name}:{line}: never to {where}\n")
    return 0


def room_of(name: str) -> str:
    """The folder of a file, at most two deep."""
    return "/".join(Path(name).parts[:-1][:2]) or "(top)"


def share(part: int, whole: int, width: int = 8) -> str:
    """A percentage."""
    return f"{100 * part / whole:{width - 1}.1f}%" if whole else f"{'-':>{width}}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
