"""Record cellfleet of an older commit for the journeys of `tests/journeys`: its sources, as a small archive.

    .venv/bin/python scripts/record_previous.py side

Needs the git history; the recordings are committed, so that a shallow clone and a source archive can run the journeys.
"""

from __future__ import annotations

import argparse
import io
import lzma
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support_previous import REVISION, SIDE  # noqa: E402


def record_side(revision: str) -> None:
    """Pack `src/cellfleet` of a commit."""
    command = ["git", "-C", str(ROOT), "archive", f"{revision}:src", "cellfleet"]
    found = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(found)) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]
    write_archive(SIDE, files)


def write_archive(path: Path, files: dict[str, bytes]) -> None:
    """A tar.xz of files that depends on their names and bytes only."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(files[name]), 0o644
            archive.addfile(entry, io.BytesIO(files[name]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(plain.getvalue(), preset=9 | lzma.PRESET_EXTREME))
    sys.stdout.write(f"{path.relative_to(ROOT)}: {len(files)} files, {path.stat().st_size / 1000:.0f} kB\n")


def main() -> int:
    """Record what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["side"])
    parser.add_argument("--revision", default=REVISION)
    options = parser.parse_args()
    record_side(options.revision)
    return 0


if __name__ == "__main__":
    sys.exit(main())
