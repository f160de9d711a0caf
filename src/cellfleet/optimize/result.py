"""What became of each variant, and the record of an optimisation."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cellfleet._version import __version__
from cellfleet.bundle.folder import ModelFolder
from cellfleet.config.model import OptimizeSection
from cellfleet.errors import OptimizeError
from cellfleet.ports import Clock
from cellfleet.runtime.choose import cpu_model

OPTIMIZATION_FILE = "optimization.json"


@dataclass(frozen=True)
class MeasuredVariant:
    """One variant: an engine with a file.

    Attributes:
        name: ``engine/precision``.
        engine: ``onnxruntime`` or ``openvino``.
        precision: ``fp32`` or ``int8``.
        bytes: size of its file; None when the file could not be made.
        ap50, map: AP@0.5 and mean AP on the validation frames; None when not measured.
        agreement: AP@0.5 of its labels against those of ``onnxruntime/fp32`` on these frames; None when not measured.
        ms_per_frame: median milliseconds from pixels to measured objects, on this machine, now; decides nothing.
        kept: it is in the model folder.
        reason: why, in one sentence.
    """

    name: str
    engine: str
    precision: str
    bytes: int | None
    ap50: float | None
    map: float | None
    agreement: float | None
    ms_per_frame: float | None
    kept: bool
    reason: str


def judge(ap50: float, reference: float, allowed: float) -> tuple[bool, str]:
    """Whether a variant may stay, and why.

    Args:
        ap50: its AP@0.5.
        reference: that of the reference on the same frames.
        allowed: greatest loss that keeps it.

    Returns:
        Whether it stays, and the reason as a sentence.

    >>> judge(0.69, 0.713, 0.01)
    (False, 'loses 0.023 AP@0.5 (0.713 -> 0.690); the limit is 0.010')
    >>> judge(0.71, 0.71, 0.01)
    (True, 'the same AP@0.5 as fp32 (0.710)')
    """
    loss = round(reference - ap50, 9)  # 0.71 - 0.70 is not to be more than 0.01
    kept = loss <= allowed
    if loss == 0:
        return kept, f"the same AP@0.5 as fp32 ({reference:.3f})"
    if loss < 0:
        return kept, f"gains {-loss:.3f} AP@0.5 ({reference:.3f} -> {ap50:.3f})"
    digits = 3 if kept or f"{loss:.3f}" != f"{allowed:.3f}" else 6
    text = f"loses {loss:.{digits}f} AP@0.5 ({reference:.{digits}f} -> {ap50:.{digits}f})"
    return kept, f"{text}; the limit is {allowed:.{digits}f}"


def record_of(
    folder: ModelFolder,
    data_set: str,
    section: OptimizeSection,
    frames: Mapping[str, Sequence[str]],
    results: Sequence[MeasuredVariant],
    clock: Clock,
) -> dict[str, Any]:
    """The record of an optimisation as plain JSON data.

    Args:
        folder: the model folder afterwards.
        data_set: digest of the data set version.
        section: the settings.
        frames: ids of the frames used, by purpose (``calibration``, ``validation``).
        results: what became of each variant.
        clock: the time.
    """
    return {
        "format_version": 1,
        "model": folder.spec.name,
        "model_version": folder.spec.version,
        "training": folder.lineage.training_run,
        "data_set": data_set,
        "settings": section.model_dump(mode="json"),
        "frames": {purpose: list(ids) for purpose, ids in frames.items()},
        "variants": [asdict(r) for r in results],
        "files": {v.name: v.sha256 for v in folder.variants},
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count()},
        "cellfleet_version": __version__,
        "time": clock.now().isoformat(timespec="seconds"),
    }


def load_record(folder: ModelFolder) -> dict[str, Any]:
    """The record that ``optimize`` left in a model folder.

    Raises:
        OptimizeError: there is none, or it cannot be read.
    """
    path = folder.file(OPTIMIZATION_FILE)
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError as e:
        raise OptimizeError(f"{folder.path} was not optimised yet", hint="run `cellfleet optimize`") from e
    except (OSError, ValueError) as e:
        raise OptimizeError(f"{path} cannot be read: {e}", hint="run `cellfleet optimize` again") from e
    return record
