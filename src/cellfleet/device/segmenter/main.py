"""The segmenter program: ``python -m cellfleet.device.segmenter.main``; the protocol is in docs/fleet.md.

One JSON object per line in, one per line out; logs go to standard error; the end of the input ends it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from cellfleet.errors import CellfleetError

PROTOCOL = 1
REFUSED_EXIT = 3
_GRACE_S = 20.0
_CHUNK = 1 << 16

Line = dict[str, Any]


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
        desk = _open_desk(args)
    except CellfleetError as e:
        _say(out, {"event": "refused", "message": e.message, "hint": e.hint})
        return REFUSED_EXIT
    _say(out, desk.ready() | {"event": "ready", "protocol": PROTOCOL})
    while (line := lines.get()) is not None:
        _say(out, _answer(desk, line))
    return 0


def _open_desk(args: argparse.Namespace) -> Any:
    if args.threads > 0:
        os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    from cellfleet.device.segmenter.service import open_service

    return open_service(args.bundle, args.variant, args.threads, args.tile_px)


def _answer(desk: Any, line: bytes) -> Line:
    try:
        request = json.loads(line)
        number, what = request["id"], request["do"]
    except (ValueError, KeyError, TypeError):
        return {"id": None, "event": "failed", "message": "not understood", "hint": "one JSON object per line"}
    try:
        done: Line = desk.do(what, request)
    except CellfleetError as e:
        done = {"event": "failed", "message": e.message, "hint": e.hint, "kind": desk.kind_of(e)}
    except (KeyError, TypeError, ValueError) as e:
        done = {"event": "failed", "message": f"{what}: {type(e).__name__}: {e}", "hint": "", "kind": "model"}
    return {"id": number, **done, "memory_mb": desk.memory_mb()}


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


def _say(out: IO[bytes], answer: Line) -> None:
    try:
        out.write(json.dumps(answer, allow_nan=False).encode() + b"\n")
    except BrokenPipeError:
        os._exit(0)  # nobody listens any more


if __name__ == "__main__":
    sys.exit(main())
