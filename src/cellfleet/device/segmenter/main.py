"""The segmenter program: ``python -m cellfleet.device.segmenter.main``; the protocol is in docs/fleet.md.

One JSON object per line in, one per line out; logs go to standard error; the end of the input ends it.
"""

from __future__ import annotations

import argparse
import logging
import os
import queue
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from cellfleet.errors import CellfleetError
from cellfleet.wire.segmenter import REFUSED_EXIT, Answer, Failed, Line, Refused, read_object, read_request

if TYPE_CHECKING:
    from cellfleet.device.segmenter.service import SegmenterService

_LOG = logging.getLogger(__name__)
_GRACE_S = 20.0
_CHUNK = 1 << 16


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="segmenter", description="Segments frames; speaks JSON lines.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--variant", default="")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--tile-px", type=int, default=1024)
    args = parser.parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    out = _own_output()
    lines = _requests()
    try:
        service = _open_service(args)
    except CellfleetError as e:
        _write(out, Refused(message=e.message, hint=e.hint))
        return REFUSED_EXIT
    _write(out, service.ready())
    while (line := lines.get()) is not None:
        _write(out, answer_line(service, line))
    return 0


def _open_service(args: argparse.Namespace) -> SegmenterService:
    if args.threads > 0:
        os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    from cellfleet.device.segmenter.service import open_service

    return open_service(args.bundle, args.variant, args.threads, args.tile_px)


def answer_line(service: SegmenterService, line: bytes) -> Answer:
    """The answer to a line, whatever is in it.

    Args:
        service: the loaded model.
        line: as it was read.

    Returns:
        What the service answers; ``Failed`` with the line's id, where it has one, for what cannot be done or understood.
    """
    number: int | None = None
    try:
        data = read_object(line)
        found = data.get("id")
        number = found if isinstance(found, int) and found >= 0 else None
        return service.answer(read_request(data))
    except CellfleetError as e:
        return service.failed(number, e)
    except Exception as e:  # a defect fails one request; the program goes on
        _LOG.exception("the request failed: %.200r", line)
        return Failed(id=number, message=f"{type(e).__name__}: {e}", memory_mb=service.memory_mb())


def _own_output() -> IO[bytes]:
    """Standard output for answers alone: what a library prints goes to standard error."""
    own = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return own


def _requests() -> queue.SimpleQueue[bytes | None]:
    """Lines of standard input, None at its end; soon after that the process ends whatever it does."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    fd = sys.stdin.fileno()

    def read() -> None:
        """Without Python's buffer, whose lock a thread that waits for input would hold while the process ends."""
        rest = b""
        while chunk := os.read(fd, _CHUNK):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                lines.put(line)
        lines.put(None)
        threading.Event().wait(_GRACE_S)
        os._exit(0)

    threading.Thread(target=read, name="input", daemon=True).start()
    return lines


def _write(out: IO[bytes], line: Line) -> None:
    try:
        out.write(line.to_json() + b"\n")
    except BrokenPipeError:
        os._exit(0)  # no reader is left


if __name__ == "__main__":
    sys.exit(main())
