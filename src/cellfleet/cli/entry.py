"""Entry point of the program. It imports little, so that Ctrl-C while libraries load ends without a traceback."""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``cellfleet`` with the arguments of this process."""
    try:
        from cellfleet.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)
