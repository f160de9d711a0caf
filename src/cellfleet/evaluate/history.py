"""What the records know of a model: the frames that it was trained with, the variants that were dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cellfleet.data import DataSetVersion
from cellfleet.data.records import Entry
from cellfleet.lineage import RecordStore
from cellfleet.runtime.loader import ModelSource


def used_in_training(
    model: ModelSource, data: DataSetVersion, evaluated: Sequence[Entry], records: RecordStore | None
) -> tuple[str, ...] | None:
    """Ids of those entries of ``data`` whose pixels are in the training or validation split of the model's own data set version.

    Returns:
        None when that version is not at hand.

    Raises:
        LineageError: a record was changed.
    """
    if model.lineage.data_set == data.digest:
        manifest: dict[str, Any] | None = data.manifest_dict()
    else:
        manifest = dict(records.all("data-set")).get(model.lineage.data_set) if records is not None else None
    if manifest is None:
        return None
    seen = {e["image"]["pixels_sha256"] for e in manifest["entries"] if e["split"] != "test"}
    return tuple(sorted(e.id for e in evaluated if e.image.pixels_sha256 in seen))


def dropped_variants(model: ModelSource, records: RecordStore) -> dict[str, str]:
    """Variants that ``optimize`` tried but did not keep -> reason, from its newest record about this very model.

    Raises:
        LineageError: a record was changed.
    """
    files = {v.name: v.sha256 for v in model.variants}
    found = [r for _, r in records.find("optimization", training=model.lineage.training_run, files=files)]
    if not found:
        return {}
    newest = max(found, key=lambda r: str(r.get("time", "")))
    return {v["name"]: v["reason"] for v in newest["variants"] if not v["kept"]}
