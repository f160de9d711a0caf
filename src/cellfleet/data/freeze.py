"""Validate and freeze a source; compare two versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellfleet.config.model import DataSection
from cellfleet.data.findings import Finding, errors
from cellfleet.data.inspection import Inspection, inspect
from cellfleet.data.records import Entry, ImageRef, MaskRef
from cellfleet.data.source_opening import open_source
from cellfleet.data.version import DataSetVersion
from cellfleet.errors import DataError
from cellfleet.ports import ProgressFn, silent


def validate(section: DataSection, root: Path, progress: ProgressFn = silent) -> list[Finding]:
    """Everything that is wrong with a data set, errors first.

    Args:
        section: settings; its paths are relative to ``root``.
        root: the project's folder.
        progress: called after every image.

    Returns:
        Findings, errors before warnings; empty when all is well.

    Raises:
        DataError, ReadError: there is no such source, or its table cannot be read at all.
    """
    return list(inspect(open_source(section, root), section, progress).findings)


def freeze(
    section: DataSection,
    root: Path,
    progress: ProgressFn = silent,
    *,
    on_warning: Callable[[Finding], None] | None = None,
) -> DataSetVersion:
    """Make a data set version; nothing is copied.

    Args:
        section, root, progress: as in :func:`validate`.
        on_warning: called with every warning.

    Returns:
        The version, with splits.

    Raises:
        DataError: the data set has errors (``cellfleet data validate`` lists them).
    """
    source = open_source(section, root)
    seen: Inspection = inspect(source, section, progress)
    wrong = errors(seen.findings)
    if wrong:
        lines = "".join(f"\n  {f}" for f in wrong[:20])
        more = f"\n  and {len(wrong) - 20} more" if len(wrong) > 20 else ""
        raise DataError(
            f"the data set has {len(wrong)} error(s):{lines}{more}",
            hint="correct them and run `cellfleet data validate` again",
        )
    if on_warning is not None:
        for finding in seen.findings:
            on_warning(finding)
    return DataSetVersion.make(seen.entries, source.root)


@dataclass(frozen=True)
class Difference:
    """What changed from one version to another; ids of entries.

    Attributes:
        changed_files: the pixels are the same, the file is another one (format, place, bytes).
        moved: id -> (old split, new split).
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed_image: tuple[str, ...]
    changed_mask: tuple[str, ...]
    changed_files: tuple[str, ...]
    moved: dict[str, tuple[str, str]]
    changed_metadata: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Nothing differs; the digests are then equal."""
        return not any(vars(self).values())


def diff(old: DataSetVersion, new: DataSetVersion) -> Difference:
    """Compare two versions by the ids of their entries; files with equal pixels are paired first."""
    a, b = {e.id: e for e in old.entries}, {e.id: e for e in new.entries}
    both = sorted(a.keys() & b.keys())
    return Difference(
        added=tuple(sorted(b.keys() - a.keys())),
        removed=tuple(sorted(a.keys() - b.keys())),
        changed_image=tuple(i for i in both if a[i].image.pixels_sha256 != b[i].image.pixels_sha256),
        changed_mask=tuple(i for i in both if a[i].mask.pixels_sha256 != b[i].mask.pixels_sha256),
        changed_files=tuple(i for i in both if _same_pixels(a[i], b[i]) and _refs(a[i]) != _refs(b[i])),
        moved={i: (a[i].split, b[i].split) for i in both if a[i].split != b[i].split},
        changed_metadata=tuple(i for i in both if _facts(a[i]) != _facts(b[i])),
    )


def _same_pixels(a: Entry, b: Entry) -> bool:
    return (a.image.pixels_sha256, a.mask.pixels_sha256) == (b.image.pixels_sha256, b.mask.pixels_sha256)


def _refs(e: Entry) -> tuple[ImageRef, MaskRef]:
    return e.image, e.mask


def _facts(e: Entry) -> dict[str, Any]:
    return e.model_dump(exclude={"image", "mask", "split", "objects", "height", "width", "dtype"})
