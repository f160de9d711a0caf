"""From a bundle or a model folder to a Segmenter: one loader for training, evaluation and devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cellfleet._version import __version__
from cellfleet.bundle import Bundle, ModelFolder, check_onnx
from cellfleet.bundle.spec import ModelSpec, Variant
from cellfleet.canonical import digest_of, sha256_hex
from cellfleet.config.model import SegmentSection
from cellfleet.errors import SegmentError, StorageError
from cellfleet.lineage import run_digest
from cellfleet.runtime.choose import Choice, fastest, pinned
from cellfleet.runtime.engines import Engine, make_engine
from cellfleet.runtime.segmenter import Origin, Segmenter

ModelSource = Bundle | ModelFolder


def load_segmenter(
    source: ModelSource,
    variant: str | None = None,
    settings: SegmentSection | None = None,
    *,
    decisive: dict[str, Any] | None = None,
    cache: Path | None = None,
) -> Segmenter:
    """Load one variant of a model into its engine.

    Args:
        source: an opened bundle, or a model folder.
        variant: ``engine/precision``; None: ``settings.variant``, and where that is empty the fastest on this machine.
        settings: tile size and threads.
        decisive: further settings of the run that decide a mask (such as an overridden pixel size); plain JSON data,
            part of the run digest.
        cache: folder that remembers the measured speeds (default: the user's cache folder).

    Returns:
        A segmenter that is ready for its first frame.

    Raises:
        EngineError: no such variant, engine not installed, or a network that the engine refuses.
        SegmentError: a file of the model does not match its description.
    """
    settings = settings or SegmentSection()
    variants, model_sha256 = tuple(source.variants), model_digest(source)

    def load(one: Variant) -> Engine:
        return make_engine(one.engine, read_variant(source, one), settings.threads)

    choice = _choose(source.spec, variants, load, variant or settings.variant, model_sha256, settings.threads, cache)
    engine = load(choice.variant)
    decides = {"tile_px": settings.tile_px, "cellfleet": __version__, **(decisive or {})}
    origin = Origin(
        model=source.spec.name,
        model_version=source.spec.version,
        model_sha256=model_sha256,
        variant=choice.variant.name,
        engine=engine.name,
        engine_version=engine.version,
        settings=decides,
        run_digest=run_digest(model_sha256, choice.variant.name, engine.name, engine.version, decides),
        reason=choice.reason,
    )
    return Segmenter(source.spec, engine, tile_px=settings.tile_px, origin=origin)


def read_variant(source: ModelSource, variant: Variant) -> bytes:
    """The ONNX bytes of a variant, after checking that they are the described ones and harmless.

    Raises:
        SegmentError: the digest differs.
        StorageError: the file cannot be read.
        BundleError: the ONNX file reaches outside itself (see ``cellfleet.bundle.check_onnx``).
    """
    if isinstance(source, Bundle):
        data = source.read(variant.file)
    else:
        path = source.file(variant.file)
        try:
            data = path.read_bytes()
        except OSError as e:
            raise StorageError(f"cannot read {path}: {e.strerror}", hint="export the model again") from e
    if sha256_hex(data) != variant.sha256:
        raise SegmentError(
            f"{variant.file} is not the file that the model's description names (its SHA-256 differs)",
            hint="export the model again, or download the bundle again",
        )
    check_onnx(data)
    return data


def model_digest(source: ModelSource) -> str:
    """Identity of a model: the bundle's SHA-256, or the digest of a model folder's description and variants."""
    if isinstance(source, Bundle):
        return source.sha256
    return digest_of(
        {
            "spec": source.spec.model_dump(mode="json"),
            "variants": {v.name: v.sha256 for v in source.variants},
        }
    )


def _choose(
    spec: ModelSpec,
    variants: Sequence[Variant],
    load: Callable[[Variant], Engine],
    name: str,
    model_sha256: str,
    threads: int,
    cache: Path | None,
) -> Choice:
    if name:
        return pinned(variants, name)
    return fastest(spec, variants, load, model_sha256=model_sha256, threads=threads, cache=cache)
