"""Entry point of the program: light, so that Ctrl-C while the libraries are being loaded ends plainly, too."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the program ``cellfleet`` with the arguments of this process."""
    try:
        from cellfleet.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)
