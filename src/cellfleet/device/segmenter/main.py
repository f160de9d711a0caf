"""The segmenter program: ``python -m cellfleet.device.segmenter.main``; the protocol is in docs/fleet.md.

One JSON object per line in, one per line out; logs go to standard error; it stops when its input closes.
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
    """Run the program. Returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="segmenter", description="Segments frames; requests and answers are JSON lines."
    )
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
    """Answer a line, also an invalid one.

    Args:
        service: the loaded model.
        line: as it was read.

    Returns:
        The service's answer; ``Failed``, with the line's id if it has one, for an invalid or failed request.
    """
    number: int | None = None
    try:
        data = read_object(line)
        found = data.get("id")
        number = found if isinstance(found, int) and found >= 0 else None
        return service.answer(read_request(data))
    except CellfleetError as e:
        return service.failed(number, e)
    except Exception as e:  # a defect fails one request, not the program
        _LOG.exception("the request failed: %.200r", line)
        return Failed(id=number, message=f"{type(e).__name__}: {e}", memory_mb=service.memory_mb())


def _own_output() -> IO[bytes]:
    """Reserve standard output for answers: output of libraries goes to standard error."""
    own = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return own


def _requests() -> queue.SimpleQueue[bytes | None]:
    """Lines of standard input, None at its end; ``_GRACE_S`` later the process exits in any case."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    fd = sys.stdin.fileno()

    def read() -> None:
        """Read unbuffered: a thread that waits in Python's buffer holds a lock that blocks the exit of the process."""
        rest = b""
        while chunk := os.read(fd, _CHUNK):
            *complete, rest = (rest + chunk).split(b"\n")
            for line in complete:
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
        os._exit(0)  # the agent has ended


if __name__ == "__main__":
    sys.exit(main())
