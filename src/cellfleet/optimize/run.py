"""Optimising a model folder: make the variants, measure them on the validation frames, keep those that pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cellfleet.bundle.folder import ModelFolder
from cellfleet.bundle.onnx_policy import check_onnx
from cellfleet.bundle.spec import Variant
from cellfleet.canonical import canonical_bytes, sha256_hex
from cellfleet.config.model import OptimizeSection
from cellfleet.errors import BundleError, CellfleetError, EngineError, OptimizeError
from cellfleet.optimize.calibration import FrameReader, choose_frames
from cellfleet.optimize.int8 import to_int8
from cellfleet.optimize.measure import Measured, measure
from cellfleet.optimize.result import OPTIMIZATION_FILE, MeasuredVariant, judge, record_of
from cellfleet.ports import Clock, ProgressFn, SystemClock, silent, write_atomic
from cellfleet.ports.disk import storage_error
from cellfleet.runtime.engines import Engine, make_engine

if TYPE_CHECKING:
    from cellfleet.data import DataSetVersion, Entry

REFERENCE = "onnxruntime/fp32"
INT8 = "variants/int8.onnx"


@dataclass(frozen=True)
class _Candidate:
    """A variant to be tried; ``problem`` says why its file could not be made."""

    variant: Variant
    onnx: bytes
    problem: str = ""


def optimize(
    folder: ModelFolder,
    data: DataSetVersion,
    section: OptimizeSection,
    progress: ProgressFn = silent,
    *,
    clock: Clock | None = None,
) -> list[MeasuredVariant]:
    """Make INT8 and OpenVINO variants of a model and keep those that lose no more AP@0.5 than allowed.

    The variants of an earlier optimisation are replaced. The folder gets model.json, the INT8 file when a variant that
    uses it was kept, and optimization.json, which alone holds times: speed decides nothing here.

    Args:
        folder: the model folder with the reference ``onnxruntime/fp32``; it is updated, here and on the disk.
        data: the data set version; training frames calibrate, validation frames measure.
        section: settings.
        progress: called with frames done, frames in all, and a note.

    Returns:
        One result per variant that was tried, the reference first.

    Raises:
        OptimizeError: no training or no validation frames, or no reference.
        ConfigError: a part in ``section.keep_fp32`` fits no node.
        SegmentError: the reference cannot segment a frame.
        StorageError: the disk refuses.
    """
    reference = next((v for v in folder.variants if v.name == REFERENCE), None)
    if reference is None:
        raise OptimizeError(f"{folder.path} has no variant {REFERENCE}", hint="export the model again")
    training = choose_frames(data, section.calibration_frames) if section.int8 else []
    validation = data.split("validation")
    if not validation:
        raise OptimizeError(
            f"the data set version {data.digest[:12]} has no validation frames to measure variants on",
            hint="raise data.validation_fraction and freeze the data set again",
        )
    total = len(training) + len(validation)
    fp32 = folder.read(reference.file, reference.sha256)
    candidates = [_Candidate(reference, fp32)]
    if section.openvino:
        candidates.append(_Candidate(reference.model_copy(update={"engine": "openvino"}), fp32))
    if section.int8:
        reader = FrameReader(folder.spec, data, training, progress, total)
        candidates += _int8_candidates(folder, fp32, reader, section)

    def measured(done: int, _: int, note: str) -> None:
        progress(len(training) + done, total, note)

    results = _measured(folder, candidates, data, validation, section, measured)
    _update(folder, candidates, results)
    frames = {"calibration": [e.id for e in training], "validation": [e.id for e in validation]}
    record = record_of(folder, data.digest, section, frames, results, clock or SystemClock())
    write_atomic(folder.file(OPTIMIZATION_FILE), canonical_bytes(record))
    return results


def _int8_candidates(
    folder: ModelFolder, fp32: bytes, reader: FrameReader, section: OptimizeSection
) -> list[_Candidate]:
    """One INT8 file for both engines; a network that cannot be converted is a reason, not an error."""
    onnx, problem = b"", ""
    try:
        onnx = to_int8(fp32, reader, method=section.calibration, keep_fp32=section.keep_fp32)
        check_onnx(onnx, folder.spec)
    except (BundleError, OptimizeError) as e:
        problem = f"the network cannot be converted: {e.message}"
    except CellfleetError:
        raise  # a wrong setting, a frame that cannot be read
    except OSError as e:
        raise storage_error("write temporary files in", Path(e.filename or "the system's folder for them"), e) from e
    except Exception as e:  # the quantiser's errors share no base but Exception
        _heed_interrupt(e)
        lines = str(e).strip().splitlines()
        problem = f"the network cannot be converted: {lines[-1] if lines else type(e).__name__}"
    variant = Variant(engine="onnxruntime", precision="int8", file=INT8, sha256=sha256_hex(onnx))
    engines = ("onnxruntime", "openvino") if section.openvino else ("onnxruntime",)
    return [_Candidate(variant.model_copy(update={"engine": e}), onnx, problem) for e in engines]


def _heed_interrupt(error: BaseException) -> None:
    """Go on as Ctrl-C when that is what lies behind an error: a library that is being loaded makes an ImportError of it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        seen = seen.__cause__ or seen.__context__


def _measured(
    folder: ModelFolder,
    candidates: list[_Candidate],
    data: DataSetVersion,
    entries: list[Entry],
    section: OptimizeSection,
    progress: ProgressFn,
) -> list[MeasuredVariant]:
    engines: dict[str, Engine] = {}
    problems: dict[str, str] = {}
    for candidate in candidates:
        name = candidate.variant.name
        if candidate.problem:
            problems[name] = candidate.problem
            continue
        try:
            engines[name] = make_engine(candidate.variant.engine, candidate.onnx)
        except EngineError as e:
            _heed_interrupt(e)
            if name == REFERENCE:
                raise
            problems[name] = f"not measured: {e.message}"
    seen = measure(folder.spec, engines, data, entries, progress)
    wanted = seen[REFERENCE].numbers.ap50
    return [_result(c, seen, problems, wanted, section.max_ap50_loss) for c in candidates]


def _result(
    candidate: _Candidate, seen: Mapping[str, Measured], problems: Mapping[str, str], wanted: float, allowed: float
) -> MeasuredVariant:
    variant = candidate.variant
    found = seen.get(variant.name)
    problem = found.failure if found else problems[variant.name]
    size = len(candidate.onnx) or None
    if found is None or problem:
        return MeasuredVariant(
            variant.name, variant.engine, variant.precision, size, None, None, None, None, False, problem
        )
    numbers = found.numbers
    kept, reason = (True, "the reference") if variant.name == REFERENCE else judge(numbers.ap50, wanted, allowed)
    return MeasuredVariant(
        name=variant.name,
        engine=variant.engine,
        precision=variant.precision,
        bytes=size,
        ap50=numbers.ap50,
        map=numbers.map,
        agreement=found.agreement,
        ms_per_frame=found.ms_per_frame,
        kept=kept,
        reason=reason,
    )


def _update(folder: ModelFolder, candidates: list[_Candidate], results: list[MeasuredVariant]) -> None:
    """Put the kept variants into the folder; at every moment its description names only files that are there."""
    before = {v.file for v in folder.variants}
    earlier = [v.name for v in folder.variants if v.name != REFERENCE]
    for name in earlier:
        folder.model = folder.without_variant(name).model
    if earlier:
        folder.save()
    for candidate, result in zip(candidates, results, strict=True):
        if result.kept and result.name != REFERENCE:
            folder.model = folder.with_variant(candidate.variant).model
    contents = {c.variant.file: c.onnx for c in candidates if c.variant.precision == "int8"}
    now = {v.file for v in folder.variants}
    for name in sorted(now & contents.keys()):
        write_atomic(folder.file(name), contents[name])
    folder.save()
    for name in sorted(before - now):
        try:
            folder.file(name).unlink(missing_ok=True)
        except OSError as e:
            raise storage_error("remove", folder.file(name), e) from e
