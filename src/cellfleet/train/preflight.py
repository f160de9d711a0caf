"""What is checked before the first batch, so that a night's training does not end in its first or last minute."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from cellfleet.bundle.spec import Head, ModelSpec
from cellfleet.canonical import digest_of
from cellfleet.config.model import TrainingSection
from cellfleet.data import DataSetVersion, Entry
from cellfleet.errors import ConfigError, TrainError
from cellfleet.ports import make_dir, write_atomic
from cellfleet.train.grid import TrainingGrid
from cellfleet.train.networks import stride_of

_MOST_FEATURES = 4096
_MOST_PADDING = 4
_ROOM_BYTES = 16 * 2**20
"""A disk with less room than this is full before the first checkpoints are written."""

# Settings that say how long, where and how fast, not what is computed.
_NOT_IDENTITY = {"runs", "minutes", "tracking_uri", "experiment"}


def run_identity(data: DataSetVersion, section: TrainingSection, heads: tuple[Head, ...]) -> str:
    """Digest of everything that decides the weights: data set version, settings, heads."""
    settings = section.model_dump(mode="json", exclude=_NOT_IDENTITY)
    return digest_of(
        {"data_set": data.digest, "settings": settings, "heads": [h.model_dump(mode="json") for h in heads]}
    )


def check_settings(
    data: DataSetVersion, section: TrainingSection, run_dir: Path, heads: tuple[Head, ...], resume: bool
) -> None:
    """Check data, settings and disk.

    Raises:
        ConfigError: a setting that cannot work.
        TrainError: data or a run that cannot be trained with; with what to do.
        StorageError: the run's folder cannot be written.
    """
    for split in ("train", "validation"):
        if not data.split(split):
            raise TrainError(f"the data set version has no {split} images", hint="freeze a data set with more groups")
    if not any(e.objects for e in data.split("train")):
        raise TrainError("no training mask holds an object", hint="annotate some images, then freeze again")
    _check_network(data, section, heads)
    if resume and not (run_dir / "checkpoint.pt").exists():
        raise TrainError(f"there is no checkpoint in {run_dir}", hint="train without --resume first")
    if not resume and (run_dir / "training.json").exists():
        raise TrainError(f"{run_dir} holds a finished run", hint="name another run with --run, or remove it")
    if not resume and (run_dir / "checkpoint.pt").exists():
        raise TrainError(f"{run_dir} holds an unfinished run", hint="go on with --resume, or remove it")
    make_dir(run_dir)
    write_atomic(run_dir / ".writable", bytes(_ROOM_BYTES))
    (run_dir / ".writable").unlink()


def check_crop(entries: list[Entry], grid: TrainingGrid, section: TrainingSection) -> None:
    """Check that crops are not far larger than every image.

    Raises:
        ConfigError: they are.
        SegmentError: an image would be absurdly large on the model's grid.
    """
    largest = max(max(size.height, size.width) for size in map(grid.size, entries))
    if section.crop_px > _MOST_PADDING * largest:
        raise ConfigError(
            f"training.crop_px is {section.crop_px}, but no image is larger than {largest} pixels on the model's grid",
            hint="lower training.crop_px, or set a finer training.target_pixel_size_um",
        )


def _check_network(data: DataSetVersion, section: TrainingSection, heads: tuple[Head, ...]) -> None:
    if not 2 <= len(section.features) <= 7 or not 1 <= min(section.features) <= max(section.features) <= _MOST_FEATURES:
        raise ConfigError(
            f"training.features is {list(section.features)}", hint="give 2 to 7 levels, such as [16, 32, 64]"
        )
    stride = stride_of(section.features)
    if section.crop_px % stride or section.crop_px < 2 * stride:
        raise ConfigError(
            f"training.crop_px is {section.crop_px}; it must be a multiple of {stride}, and at least {2 * stride}",
            hint=f"with {len(section.features)} levels take {max(2 * stride, section.crop_px // stride * stride)}",
        )
    channels = {e.channels for e in data.split("train") + data.split("validation")}
    if len(channels) > 1:
        listed = "; ".join(", ".join(c) for c in sorted(channels))
        raise TrainError(f"the images have different channels: {listed}", hint="freeze images with the same channels")
    if not {"foreground", "distance"} <= {h.kind for h in heads}:
        raise TrainError("the network needs a foreground and a distance head", hint="name both among the heads")
    if taken := {h.name for h in heads} & {"image", "mean", "std"}:
        raise TrainError(f"no head may be called {taken.pop()}", hint="that is an input of the network; choose another")
    if odd := [h.name for h in heads if h.kind == "classes" and len(h.classes) != 2]:
        raise TrainError(
            f"the head {odd[0]} must have two classes, background and cell: masks hold no others",
            hint="give that head two classes",
        )
    try:
        ModelSpec(name="x", version="0.0.0", channels=channels.pop(), heads=heads, stride=1, halo_px=0)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(p) for p in first["loc"]) or "heads"
        raise TrainError(
            f"a model cannot have these channels and heads: {where}: {first['msg']}",
            hint="name channels with letters, digits, - and _, each name once",
        ) from e
