"""Which variant of a model this machine uses: the fastest of those in the bundle, measured here, remembered here.

Speed depends on the machine, so it never decides what is in a bundle; all variants in a bundle passed their gate.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellfleet.bundle.spec import ModelSpec, Variant
from cellfleet.canonical import canonical_bytes, digest_of
from cellfleet.errors import EngineError, StorageError
from cellfleet.ports import Clock, SystemClock, write_atomic
from cellfleet.runtime.engines import Engine

_log = logging.getLogger(__name__)
_PROBE_PX = 512
_REPEATS = 5


@dataclass(frozen=True)
class Choice:
    """A variant and why it was taken.

    Attributes:
        variant: the chosen variant.
        reason: one line with the times of all variants that can run here.
        milliseconds: variant name -> median time of the network on a 512 x 512 frame; empty when nothing was measured.
    """

    variant: Variant
    reason: str
    milliseconds: Mapping[str, float]


def pinned(variants: Sequence[Variant], name: str) -> Choice:
    """The variant that the user named.

    Raises:
        EngineError: there is none of that name.
    """
    for variant in variants:
        if variant.name == name:
            return Choice(variant, f"{name}: chosen by the user", {})
    raise EngineError(
        f"the model has no variant {name!r}", hint=f"it has: {', '.join(v.name for v in variants) or 'none'}"
    )


def fastest(
    spec: ModelSpec,
    variants: Sequence[Variant],
    load: Callable[[Variant], Engine],
    *,
    model_sha256: str,
    threads: int = 0,
    cache: Path | None = None,
    clock: Clock | None = None,
) -> Choice:
    """Measure the variants on this machine, once, and take the fastest.

    Args:
        spec: the model.
        variants: those in the bundle.
        load: gives the engine with a variant's network; raises EngineError where the engine is not installed.
        model_sha256: identity of the model, for the cache.
        threads: CPU threads that the engines use.
        cache: folder that remembers the times (default: ``cache_dir()``).

    Raises:
        EngineError: no variant can run here.
    """
    engines, refused = _load_all(variants, load)
    if not engines:
        reasons = "; ".join(f"{name}: {e.message}" for name, e in refused.items()) or "the model has no variants"
        first = next(iter(refused.values()), None)
        raise EngineError(f"no variant of the model runs here: {reasons}", hint=first.hint if first else "")
    file = (cache or cache_dir()) / f"speed-{_key(model_sha256, engines, threads)}.json"
    times = _remembered(file, engines)
    if times is None:
        times = _measure(spec, engines, clock or SystemClock()) if len(engines) > 1 else {}
        _remember(file, times)
    best = min(engines, key=lambda name: times.get(name, 0.0))
    chosen = next(v for v in variants if v.name == best)
    return Choice(chosen, _reason(best, times, refused), times)


def cache_dir() -> Path:
    """Folder for what can be measured again: ``CELLFLEET_CACHE``, else the system's cache folder of the user."""
    if own := os.environ.get("CELLFLEET_CACHE"):
        return Path(own)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "cellfleet"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "cellfleet"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cellfleet"


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def probe_times(
    engine: Engine, channels: int, clock: Clock, *, side_px: int = _PROBE_PX, repeats: int = 1
) -> list[float]:
    """Milliseconds of ``repeats`` runs of the network on a synthetic ``side_px`` square frame."""
    rows, columns = np.mgrid[0:side_px, 0:side_px].astype(np.float32)
    plane = 128 + 60 * np.sin(rows / 7) * np.cos(columns / 11) + 10 * np.sin(rows * columns)
    image = np.broadcast_to(plane.astype(np.float32), (1, channels, side_px, side_px)).copy()
    mean, std = np.full((1, channels), 128, np.float32), np.full((1, channels), 40, np.float32)
    times = []
    for _ in range(repeats):
        start = clock.monotonic_s()
        engine.run(image, mean, std)
        times.append(1e3 * (clock.monotonic_s() - start))
    return times


def _load_all(
    variants: Sequence[Variant], load: Callable[[Variant], Engine]
) -> tuple[dict[str, Engine], dict[str, EngineError]]:
    engines: dict[str, Engine] = {}
    refused: dict[str, EngineError] = {}
    for variant in variants:
        try:
            engines[variant.name] = load(variant)
        except EngineError as e:
            refused[variant.name] = e
    return engines, refused


def _measure(spec: ModelSpec, engines: Mapping[str, Engine], clock: Clock) -> dict[str, float]:
    """Round after round over all engines, so that a busy moment of the machine hits them alike; the first is warm-up."""
    rounds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(_REPEATS + 1):
        for name, engine in engines.items():
            rounds[name] += probe_times(engine, len(spec.channels), clock)
    return {name: round(statistics.median(times[1:]), 3) for name, times in rounds.items()}


def _reason(best: str, times: Mapping[str, float], refused: Mapping[str, EngineError]) -> str:
    if times:
        ranked = sorted(times.items(), key=lambda item: item[1])
        text = f"{best} is the fastest here: " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in ranked)
    else:
        text = f"{best} is the only variant that runs here"
    return text + "".join(f"; {name} not used: {e.message}" for name, e in refused.items())


def _key(model_sha256: str, engines: Mapping[str, Engine], threads: int) -> str:
    facts = {
        "model": model_sha256,
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": threads,
        "engines": {name: engine.version for name, engine in engines.items()},
    }
    return digest_of(facts)[:32]


def _remembered(file: Path, engines: Mapping[str, Engine]) -> dict[str, float] | None:
    try:
        times = json.loads(file.read_text(encoding="utf-8"))["milliseconds"]
        known = {str(name): float(ms) for name, ms in times.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # absent or damaged: it is measured again
    return known if set(known) == set(engines) else None


def _remember(file: Path, times: Mapping[str, float]) -> None:
    if not times:
        return
    try:
        write_atomic(file, canonical_bytes({"format_version": 1, "milliseconds": dict(times)}))
    except StorageError as e:
        _log.warning("the measured speeds cannot be kept, so they are measured again next time: %s", e)
