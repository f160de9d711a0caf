"""Measure a model and write everything that belongs to an evaluation into one folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellfleet.bundle import Bundle
from cellfleet.config.model import EvaluationSection, GateSection, SegmentSection
from cellfleet.data import DataSetVersion
from cellfleet.data.records import SplitName
from cellfleet.evaluate.assess import Assessment, assess
from cellfleet.evaluate.decision import KIND, decision_payload
from cellfleet.evaluate.gate import Champion
from cellfleet.evaluate.history import dropped_variants
from cellfleet.evaluate.metrics_file import metrics_json
from cellfleet.evaluate.output import DECISION, METRICS, REPORT, Gallery, replaced_folder
from cellfleet.evaluate.report import report_html
from cellfleet.lineage import RecordStore, SigningKey, sign
from cellfleet.ports import Clock, ProgressFn, SystemClock, silent
from cellfleet.runtime.loader import ModelSource


@dataclass(frozen=True)
class Written:
    """An evaluation on the disk.

    Attributes:
        folder: where it lies.
        assessment: what was found.
        decision: digest of the decision record; None for a model folder.
    """

    folder: Path
    assessment: Assessment
    decision: str | None


def folder_name(model: ModelSource, data: DataSetVersion, split: str) -> str:
    """``<name>-<version>-<data set, 8 digits>``, and the split where it is not ``test``."""
    base = f"{model.spec.name}-{model.spec.version}-{data.digest[:8]}"
    return base if split == "test" else f"{base}-{split}"


def evaluate_model(
    model: ModelSource,
    data: DataSetVersion,
    folder: Path,
    *,
    policy: GateSection,
    records: RecordStore,
    key: Path,
    section: EvaluationSection | None = None,
    settings: SegmentSection | None = None,
    split: SplitName = "test",
    variant: str | None = None,
    champion: Champion | ModelSource | None = None,
    approver: str = "",
    progress: ProgressFn = silent,
    clock: Clock | None = None,
) -> Written:
    """Measure a model; write report.html, metrics.json, overlays/ and, for a bundle, decision.json, all or nothing.

    Args:
        model: a bundle or a model folder.
        data, split: what it is measured on.
        folder: what is written; an earlier evaluation there is replaced.
        policy: thresholds of the gate.
        records: where the decision record is put as well, and where the model's own data set version is looked for.
        key: Ed25519 private key that signs it; made when absent.
        section: how many frames the report shows.
        settings: tile size and threads.
        variant, champion: see ``assess``.
        approver: recorded in the decision.
        progress: called once per frame and variant.
        clock: says when the decision was made.

    Returns:
        What was written: paths, assessment, verdict, digest of the decision record.

    Raises:
        EvaluateError: an empty split, or a folder that holds something else.
        LineageError: a key that cannot be used.
        StorageError: the disk refuses; what was there before is still there.
        BundleError, DataError, EngineError, SegmentError: see ``assess``.
    """
    section = section or EvaluationSection()
    signer = SigningKey.load_or_create(key) if isinstance(model, Bundle) else None  # a wrong key fails before the work
    decision = None
    with replaced_folder(folder) as part:
        gallery = Gallery(part, model.spec.channels[0], section.worst_frames)
        found = assess(
            model,
            data,
            policy,
            split=split,
            variant=variant,
            champion=champion,
            settings=settings,
            records=records,
            progress=progress,
            on_frame=gallery.add,
        )
        dropped = dropped_variants(model, records)
        report = report_html(found, gallery.worst(), approver=approver, dropped=dropped)
        (part / REPORT).write_text(report, encoding="utf-8", newline="\n")
        (part / METRICS).write_text(_pretty(metrics_json(found)), encoding="utf-8", newline="\n")
        if signer is not None:
            envelope = sign(decision_payload(found, approver, (clock or SystemClock()).now()), signer)
            (part / DECISION).write_text(_pretty(envelope), encoding="utf-8", newline="\n")
            decision = records.put(KIND, envelope)
    return Written(folder, found, decision)


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
