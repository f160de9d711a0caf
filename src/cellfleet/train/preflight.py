"""What is checked before the first batch, so that a night's training does not end in its first or last minute."""

from __future__ import annotations

from pathlib import Path

from cellfleet.bundle.spec import Head
from cellfleet.canonical import digest_of
from cellfleet.config import TrainingSection
from cellfleet.data import DataSetVersion
from cellfleet.errors import TrainError
from cellfleet.ports import make_dir, write_atomic
from cellfleet.train.networks import stride_of

# Settings that say how long, where and how fast, not what is computed.
_NOT_IDENTITY = {"runs", "minutes", "tracking_uri", "experiment", "workers"}


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
        TrainError: with the setting and what to do.
        StorageError: the run's folder cannot be written.
    """
    for split in ("train", "validation"):
        if not data.split(split):
            raise TrainError(f"the data set version has no {split} images", hint="freeze a data set with more groups")
    if not any(e.objects for e in data.split("train")):
        raise TrainError("no training mask holds an object", hint="annotate some images, then freeze again")
    kinds = {h.kind for h in heads}
    if not {"foreground", "distance"} <= kinds:
        raise TrainError("the network needs a foreground and a distance head", hint="name both among the heads")
    if not 2 <= len(section.features) <= 7 or min(section.features) < 1:
        raise TrainError(
            f"training.features is {list(section.features)}", hint="give 2 to 7 levels, such as [16, 32, 64]"
        )
    stride = stride_of(section.features)
    if section.crop_px % stride:
        raise TrainError(
            f"training.crop_px {section.crop_px} is not a multiple of {stride}",
            hint=f"with {len(section.features)} levels take {max(stride, section.crop_px // stride * stride)}",
        )
    channels = {e.channels for e in data.split("train") + data.split("validation")}
    if len(channels) > 1:
        listed = "; ".join(", ".join(c) for c in sorted(channels))
        raise TrainError(f"the images have different channels: {listed}", hint="freeze images with the same channels")
    if not resume and (run_dir / "training.json").exists():
        raise TrainError(f"{run_dir} holds a finished run", hint="name another run with --run, or remove it")
    if not resume and (run_dir / "checkpoint.pt").exists():
        raise TrainError(f"{run_dir} holds an unfinished run", hint="go on with --resume, or remove it")
    make_dir(run_dir)
    write_atomic(run_dir / ".writable", b"")
    (run_dir / ".writable").unlink()
