"""A whole model against a data set version: every variant measured, the champion beside it, the gate's verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellfleet.bundle import Bundle, ModelFolder, open_bundle
from cellfleet.bundle.spec import Variant
from cellfleet.config.model import GateSection, SegmentSection
from cellfleet.data import DataSetVersion
from cellfleet.data.records import SplitName
from cellfleet.errors import EngineError, EvaluateError
from cellfleet.evaluate.evaluation import Evaluation, Scene, evaluate
from cellfleet.evaluate.gate import Champion, Verdict, gate
from cellfleet.evaluate.history import used_in_training
from cellfleet.evaluate.numbers import KEY_NUMBERS
from cellfleet.lineage import RecordStore
from cellfleet.ports import ProgressFn, silent
from cellfleet.runtime.loader import ModelSource, load_segmenter, model_digest, read_variant
from cellfleet.runtime.segmenter import Origin

REFERENCE = "onnxruntime/fp32"


@dataclass(frozen=True)
class EvaluatedVariant:
    """One variant of the model on the same frames.

    Attributes:
        name: ``engine/precision``.
        sha256: digest of its file.
        bytes: size of its file.
        evaluation: its numbers; None when it could not run here.
        reason: why there are no numbers; empty otherwise.
    """

    name: str
    sha256: str
    bytes: int
    evaluation: Evaluation | None
    reason: str = ""


@dataclass(frozen=True)
class Assessment:
    """Everything that an evaluation of a model found.

    Attributes:
        name, version: of the model.
        digest: of the bundle, or of the model folder.
        bundle: the digest of the bundle; None for a model folder.
        origin: engine and settings of the primary variant's masks.
        lineage: where the model comes from, plain JSON data.
        evaluation: the primary variant.
        variants: all that were measured, the primary one first.
        champion: the model in production, on the same frames; None when there is none.
        used_in_training: ids of the frames that the model was trained or tuned with; None when that is not known.
        verdict: the gate's answer for the primary variant.
        policy: the thresholds.
    """

    name: str
    version: str
    digest: str
    bundle: str | None
    origin: Origin
    lineage: dict[str, Any]
    evaluation: Evaluation
    variants: tuple[EvaluatedVariant, ...]
    champion: Champion | None
    used_in_training: tuple[str, ...] | None
    verdict: Verdict
    policy: GateSection

    @property
    def variant(self) -> str:
        """Name of the primary variant."""
        return self.origin.variant


def assess(
    model: ModelSource,
    data: DataSetVersion,
    policy: GateSection,
    *,
    split: SplitName = "test",
    variant: str | None = None,
    champion: Champion | ModelSource | None = None,
    settings: SegmentSection | None = None,
    records: RecordStore | None = None,
    progress: ProgressFn = silent,
    on_frame: Callable[[Scene], None] | None = None,
) -> Assessment:
    """Measure a model.

    Args:
        model: a bundle or a model folder.
        data, split: what it is measured on.
        policy: thresholds of the gate.
        variant: the only one to be measured; None: all of them, ``onnxruntime/fp32`` (else the first) for the gate.
        champion: its numbers, or the model itself, which is then measured on the same frames.
        settings: tile size and threads.
        records: where the model's training data set may be found, to see that no frame was trained with.
        progress: called once per frame and variant.
        on_frame: called with every frame of the primary variant.

    Raises:
        EvaluateError: no such split.
        EngineError: no such variant, or the primary one cannot run here.
        DataError, SegmentError: a frame that cannot be read or segmented.
    """
    chosen = _chosen(model, variant)
    steps = len(data.split(split)) * (len(chosen) + isinstance(champion, Bundle | ModelFolder))
    count = _Counter(progress, steps)
    evaluation, origin = _measure(model, chosen[0], data, split, settings, count, on_frame)
    results = [_result(model, chosen[0], evaluation)]
    for other in chosen[1:]:
        results.append(_attempt(model, other, data, split, settings, count))
    if isinstance(champion, Bundle | ModelFolder):
        measured, _ = _measure(champion, _chosen(champion, None)[0], data, split, settings, count, None)
        champion = champion_of(champion, _chosen(champion, None)[0].name, measured)
    used = used_in_training(model, data, data.split(split), records)
    return Assessment(
        name=model.spec.name,
        version=model.spec.version,
        digest=model_digest(model),
        bundle=model.sha256 if isinstance(model, Bundle) else None,
        origin=origin,
        lineage=model.lineage.model_dump(mode="json"),
        evaluation=evaluation,
        variants=tuple(results),
        champion=champion,
        used_in_training=used,
        verdict=gate(evaluation, policy, champion, used_in_training=used),
        policy=policy,
    )


def champion_of(model: ModelSource, variant: str, evaluation: Evaluation) -> Champion:
    """The numbers of a measured model as those of a champion."""
    overall, strata = evaluation.summary.overall, evaluation.summary.strata
    return Champion(
        name=model.spec.name,
        version=model.spec.version,
        model=model_digest(model),
        variant=variant,
        numbers={k: getattr(overall, k) for k in KEY_NUMBERS},
        strata={s: n.ap50 for s, n in strata.items()},
    )


class _Counter:
    """One progress over several passes."""

    def __init__(self, progress: ProgressFn, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def step(self, label: str) -> ProgressFn:
        def draw(_done: int, _total: int, note: str) -> None:
            self._done += 1
            self._progress(self._done, self._total, f"{label} {note}")

        return draw

    def skip(self, frames: int) -> None:
        self._done += frames


def _chosen(model: ModelSource, name: str | None) -> list[Variant]:
    variants = list(model.variants)
    if not variants:
        raise EvaluateError("the model has no variant to be measured", hint="export it again")
    if name is None:
        return sorted(variants, key=lambda v: v.name != REFERENCE)
    found = [v for v in variants if v.name == name]
    if not found:
        raise EngineError(f"the model has no variant {name!r}", hint=f"it has: {', '.join(v.name for v in variants)}")
    return found


def _measure(
    model: ModelSource,
    variant: Variant,
    data: DataSetVersion,
    split: SplitName,
    settings: SegmentSection | None,
    count: _Counter,
    on_frame: Callable[[Scene], None] | None,
) -> tuple[Evaluation, Origin]:
    segmenter = load_segmenter(model, variant.name, settings)
    assert segmenter.origin is not None
    label = f"{model.spec.name} {model.spec.version} {variant.name}:"
    done = evaluate(segmenter.segment, data, split, count.step(label), on_frame=on_frame)
    return done, segmenter.origin


def _attempt(
    model: ModelSource,
    variant: Variant,
    data: DataSetVersion,
    split: SplitName,
    settings: SegmentSection | None,
    count: _Counter,
) -> EvaluatedVariant:
    try:
        evaluation, _ = _measure(model, variant, data, split, settings, count, None)
    except EngineError as e:  # an engine that is not installed is not a fault of the model
        count.skip(len(data.split(split)))
        return _result(model, variant, None, e.message)
    return _result(model, variant, evaluation)


def _result(model: ModelSource, variant: Variant, evaluation: Evaluation | None, reason: str = "") -> EvaluatedVariant:
    return EvaluatedVariant(variant.name, variant.sha256, len(read_variant(model, variant)), evaluation, reason)


def open_model(path: Path) -> ModelSource:
    """Open a bundle file or a model folder.

    Raises:
        BundleError: neither, or damaged.
    """
    return ModelFolder.load(path) if path.is_dir() else open_bundle(path)
