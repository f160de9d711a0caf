"""Reading every image and mask of a source once: facts for the manifest, findings for the user."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cellfleet.config.model import DataSection
from cellfleet.data.annotations.objects import check_objects
from cellfleet.data.findings import Finding, error, warning
from cellfleet.data.images.frame import Frame
from cellfleet.data.images.reader import decode_image, load_raw
from cellfleet.data.locate import to_uri
from cellfleet.data.records import SPLITS, Entry, ImageRef, MaskRef, SplitName
from cellfleet.data.source import Item, MaskData, Source
from cellfleet.data.splits import Member, absent_strata, draw
from cellfleet.data.version import pixels_digest
from cellfleet.errors import DataError, ReadError
from cellfleet.ports import ProgressFn, silent


@dataclass(frozen=True)
class Inspection:
    """What a source holds.

    Attributes:
        entries: one per readable image with a mask; their splits are drawn, or those that index.csv names.
        findings: everything that is wrong, errors first, then by file.
    """

    entries: tuple[Entry, ...]
    findings: tuple[Finding, ...]


def inspect(source: Source, section: DataSection, progress: ProgressFn = silent) -> Inspection:
    """Read all files of a source once and draw the splits.

    Args:
        source: what ``open_source`` found.
        section: channels, pixel size, fractions and the least area of an object.
        progress: called after every image.
    """
    findings = list(source.findings)
    drafts: list[Entry] = []
    for done, item in enumerate(source.items, 1):
        draft = _read(item, source, section, findings)
        if draft is not None:
            drafts.append(draft)
        progress(done, len(source.items), item.id)
    findings += _across(drafts)
    entries = _with_splits(source, drafts, section, findings)
    ordered = sorted(set(findings), key=lambda f: (f.level != "error", f.file, f.code, f.message))
    return Inspection(tuple(entries), tuple(ordered))


def _read(item: Item, source: Source, section: DataSection, findings: list[Finding]) -> Entry | None:
    name = source.name(item.image)
    try:
        raw = load_raw(item.image)
        frame = decode_image(raw, str(item.image), channels=item.channels or section.channels)
    except ReadError as e:
        findings.append(error("unreadable", name, e.message.removeprefix(f"{item.image}: "), e.hint))
        return None
    if item.frozen is not None and raw.sha256 != item.frozen.image.sha256:
        findings.append(_changed(name))
    findings += _blank(frame, name)
    if item.mask is None:
        return None
    mask_name = source.name(item.mask.path) if item.mask.kind == "labels" else f"{item.mask.path.name}:{item.id}"
    try:
        mask = item.mask.read(mask_name)
    except (ReadError, DataError) as e:
        findings.append(error("unreadable-mask", mask_name, e.message.removeprefix(f"{item.mask.path}: "), e.hint))
        return None
    if mask.labels.shape != (frame.height, frame.width):
        message = f"is {list(mask.labels.shape)}, its image {[frame.height, frame.width]}"
        findings.append(error("shape", mask_name, message, "export image and mask at the same size"))
        return None
    if item.frozen is not None and mask.sha256 != item.frozen.mask.sha256:
        findings.append(_changed(source.name(item.mask.path)))
    findings += [*mask.findings, *_objects(mask, mask_name, section.min_object_area_px)]
    return _entry(item, source, section, frame, raw.sha256, mask)


def _blank(frame: Frame, name: str) -> list[Finding]:
    flat = [c for c, plane in zip(frame.channels, frame.pixels, strict=True) if plane.size > 1 and np.ptp(plane) == 0]
    if not flat:
        return []
    message = f"every pixel of {', '.join(flat)} has the same value"
    return [warning("blank", name, message, "look whether the export went wrong; else leave the image out")]


def _changed(name: str) -> Finding:
    return error("changed", name, "changed since it was frozen", "put the old file back, or freeze the source again")


def _entry(item: Item, source: Source, section: DataSection, frame: Frame, sha256: str, mask: MaskData) -> Entry:
    assert item.mask is not None
    image = ImageRef(uri=to_uri(item.image, source.root), sha256=sha256, pixels_sha256=pixels_digest(frame.pixels))
    return Entry(
        id=item.id,
        image=image,
        mask=MaskRef(
            kind=item.mask.kind,
            uri=to_uri(item.mask.path, source.root),
            sha256=mask.sha256,
            pixels_sha256=pixels_digest(mask.labels),
            image_id=item.mask.image_id,
        ),
        channels=frame.channels,
        dtype="uint8" if frame.pixels.dtype == "uint8" else "uint16",
        height=frame.height,
        width=frame.width,
        pixel_size_um=item.pixel_size_um or frame.pixel_size_um or section.pixel_size_um,
        objects=_count(mask),
        group=item.group or item.id,
        stratum=item.stratum or "all",
        split=item.split or "train",
        metadata={**frame.metadata, **item.metadata},
        provenance=dict(item.provenance),
    )


def _count(mask: MaskData) -> int:
    values = np.unique(mask.labels)
    return int(values.size - (values.size > 0 and values[0] == 0))


def _objects(mask: MaskData, name: str, min_area_px: int) -> list[Finding]:
    check = check_objects(mask.labels, min_area_px)
    found = []
    if check.count == 0:
        found.append(warning("empty-mask", name, "holds no object", "nothing, if the field is empty; else annotate it"))
    if check.pieces:
        message = f"{len(check.pieces)} object(s) in several pieces ({_some(check.pieces)})"
        found.append(warning("pieces", name, message, "give each cell a label of its own, or join its pieces"))
    tiny = sorted({*check.small, *check.fragments})
    if tiny:
        message = f"{len(tiny)} object(s) or pieces smaller than {min_area_px} px ({_some(tiny)})"
        found.append(warning("fragment", name, message, "erase them, or lower data.min_object_area_px"))
    return found


def _some(labels: Iterable[int]) -> str:
    listed = list(labels)
    return "labels " + ", ".join(map(str, listed[:5])) + (", ..." if len(listed) > 5 else "")


def _across(drafts: list[Entry]) -> list[Finding]:
    """What can only be seen by comparing the images."""
    found: list[Finding] = []
    unknown = [e.id for e in drafts if e.pixel_size_um is None]
    if unknown:
        message = f"the pixel size of {len(unknown)} image(s) is unknown, areas will be in pixels"
        found.append(
            warning(
                "pixel-size", unknown[0], message, "add a column pixel_size_um to index.csv, or set data.pixel_size_um"
            )
        )
    for what, values in (("channels", [e.channels for e in drafts]), ("dtype", [e.dtype for e in drafts])):
        usual = Counter(values).most_common(1)
        for e, value in zip(drafts, values, strict=True):
            if value != usual[0][0]:
                level = error if what == "channels" else warning
                message = f"has {what} {value}, most images have {usual[0][0]}"
                found.append(level(f"unequal-{what}", e.id, message, "export all images alike"))
    return found


def _with_splits(source: Source, drafts: list[Entry], section: DataSection, findings: list[Finding]) -> list[Entry]:
    if not drafts:
        if not source.items and not any(f.level == "error" for f in findings):
            findings.append(error("no-images", source.root.name, "the data set is empty", "add images and masks"))
        return []
    named = {i.id: i.split for i in source.items if i.split is not None}
    members = [Member(e.id, e.group, e.stratum, e.image.pixels_sha256) for e in drafts]
    if named:
        missing = [e.id for e in drafts if e.id not in named]
        if missing:
            message = f"{len(missing)} image(s) have no split while others do"
            findings.append(error("split", missing[0], message, "fill the column split for all images, or for none"))
        splits: dict[str, SplitName] = {e.id: named.get(e.id) or "train" for e in drafts}
        findings += _straddling(drafts, splits)
    else:
        try:
            splits = draw(members, section.validation_fraction, section.test_fraction)
        except DataError as e:
            findings.append(error("split", source.root.name, e.message, e.hint))
            return []
    findings += _duplicates(drafts, splits)
    for stratum, lacking, units in absent_strata(members, splits):
        message = (
            f"stratum {stratum!r} is not in {', '.join(lacking)}: it has {units} independent group(s), it needs three"
        )
        findings.append(
            warning("stratum", source.root.name, message, "add images of other wells or fields of that stratum")
        )
    return [e.model_copy(update={"split": splits[e.id]}) for e in drafts]


def _straddling(drafts: list[Entry], splits: dict[str, SplitName]) -> list[Finding]:
    where: dict[str, set[SplitName]] = defaultdict(set)
    for e in drafts:
        where[e.group].add(splits[e.id])
    return [
        error("straddle", group, f"the group is in {', '.join(s for s in SPLITS if s in names)}",
              "put all images of a group into one split")
        for group, names in where.items() if len(names) > 1
    ]  # fmt: skip


def _duplicates(drafts: list[Entry], splits: dict[str, SplitName]) -> list[Finding]:
    same: dict[str, list[Entry]] = defaultdict(list)
    for e in drafts:
        same[e.image.pixels_sha256].append(e)
    found = []
    for entries in same.values():
        for other in entries[1:]:
            first = entries[0]
            if splits[first.id] != splits[other.id]:
                message = (
                    f"has the same pixels as {first.id}, in another split ({splits[first.id]}, {splits[other.id]})"
                )
                found.append(error("leak", other.id, message, "put both into one split, or remove one"))
            else:
                message = f"has the same pixels as {first.id}"
                found.append(warning("duplicate", other.id, message, "remove one of them"))
    return found
