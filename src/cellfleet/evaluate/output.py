"""The folder of an evaluation: built beside its place and renamed into it, so that nothing is ever half-written."""

from __future__ import annotations

import heapq
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cellfleet.canonical import sha256_hex
from cellfleet.errors import EvaluateError
from cellfleet.evaluate.evaluation import Scene
from cellfleet.evaluate.pictures import draw, jpeg, png
from cellfleet.ports import make_dir
from cellfleet.ports.disk import storage_error, sync, sync_dir
from cellfleet.ports.temporary_files import OLD, part_path, sweep

METRICS, REPORT, DECISION, OVERLAYS = "metrics.json", "report.html", "decision.json", "overlays"
_OVERLAY_PX = 2048
REPORT_PX = 1000


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder beside ``target``; when the block ends well it takes the place of ``target``.

    When the block raises (also on Ctrl-C), ``target`` stays as it was.

    Raises:
        EvaluateError: ``target`` holds something else than an evaluation.
        StorageError: the disk refuses.
    """
    target = Path(os.path.abspath(target))
    make_dir(target.parent)
    sweep(target.parent)
    _check_replaceable(target)
    part, old = part_path(target), part_path(target, OLD)
    try:
        part.mkdir()
        yield part
        sync(part)
        if target.exists():
            target.rename(old)
        try:
            part.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        sync_dir(target.parent)
    except OSError as e:
        raise storage_error("write", target, e) from e
    finally:
        for folder in (part, old):
            shutil.rmtree(folder, ignore_errors=True)


def _check_replaceable(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir() or (any(target.iterdir()) and not (target / METRICS).is_file()):
        raise EvaluateError(
            f"{target} is there already and is not an evaluation", hint="name another folder; nothing was changed"
        )


class Gallery:
    """Takes every frame as it is measured, writes its overlay, and keeps the pictures of the worst frames."""

    def __init__(self, folder: Path, channel: str, keep: int) -> None:
        """Write to ``folder``/overlays; show ``channel``; keep the ``keep`` worst frames for the report."""
        self._folder, self._channel, self._keep = folder / OVERLAYS, channel, keep
        self._heap: list[tuple[_Reversed, str, bytes]] = []
        self._names: set[str] = set()

    def add(self, scene: Scene) -> None:
        """Write the overlay of a frame.

        Raises:
            StorageError: the disk refuses.
        """
        frame_id = scene.result.id
        path = self._folder / f"{self._name(frame_id)}.png"
        try:
            self._folder.mkdir(exist_ok=True)
            path.write_bytes(png(draw(scene, self._channel, _OVERLAY_PX)))
        except OSError as e:
            raise storage_error("write", path, e) from e
        item = (_Reversed(scene.result.badness), frame_id, jpeg(draw(scene, self._channel, REPORT_PX)))
        if len(self._heap) < self._keep:
            heapq.heappush(self._heap, item)
        else:
            heapq.heappushpop(self._heap, item)

    def worst(self) -> dict[str, bytes]:
        """Frame id -> JPEG of the worst frames."""
        return {frame_id: data for _, frame_id, data in self._heap}

    def _name(self, frame_id: str) -> str:
        """A file name for any id, never used twice."""
        name = re.sub(r"[^\w.-]+", "_", frame_id).strip(".")[:100] or "frame"
        if name.casefold() in self._names:
            name = f"{name}-{sha256_hex(frame_id.encode())[:8]}"
        self._names.add(name.casefold())
        return name


class _Reversed:
    """Orders the other way round: the least bad frame is the first to leave the heap."""

    def __init__(self, key: Any) -> None:
        self.key = key

    def __lt__(self, other: _Reversed) -> bool:
        return bool(other.key < self.key)
