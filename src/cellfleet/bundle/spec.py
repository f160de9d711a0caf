"""What a model is, as everybody from training to the instrument reads it.

These records are stored in bundles, so they are strict (an unknown field is an error) and carry a format version.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

FORMAT_VERSION = 1

SemVer = Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ChannelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]


class Record(BaseModel):
    """Base of stored records: frozen, strict, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Head(Record):
    """One output of the network.

    Attributes:
        name: the ONNX output name.
        kind: ``foreground`` (sigmoid, 1 channel: probability that a pixel belongs to a cell), ``distance`` (sigmoid,
            1 channel: distance to the object's edge divided by the object's greatest such distance), or ``classes``
            (softmax over ``classes``).
        classes: class names of a ``classes`` head, else empty.
    """

    name: Name
    kind: Literal["foreground", "distance", "classes"]
    classes: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Number of channels of this output."""
        return max(1, len(self.classes))


class ObjectParams(Record):
    """How objects are cut from the network's maps; see docs/architecture.md for the algorithm and its tie rules.

    Thresholds are probabilities in [0, 1]; lengths and areas are in pixels of the model's grid (``target_pixel_size_um``)
    and are scaled when objects are cut on the frame's own grid.

    Attributes:
        foreground_threshold: least foreground probability of a cell pixel.
        seed_threshold: least smoothed distance value of a seed pixel.
        smooth_passes: times that the distance map is smoothed with the 3 x 3 binomial filter (1 2 1) x (1 2 1) / 16.
        min_seed_area_px: smaller seeds are dropped.
        min_area_px: smaller objects are dropped.
    """

    foreground_threshold: float = Field(default=0.5, gt=0, lt=1)
    seed_threshold: float = Field(default=0.5, gt=0, lt=1)
    smooth_passes: int = Field(default=2, ge=0, le=64)
    min_seed_area_px: int = Field(default=3, ge=0)
    min_area_px: int = Field(default=30, ge=0)


class ModelSpec(Record):
    """A trained network as the runtime needs to know it.

    Attributes:
        name, version: the model's name and SemVer version.
        channels: names of the input channels, in the order of axis C of ``image``.
        heads: outputs, in the order of the ONNX graph's outputs.
        stride: the network pads height and width to a multiple of this (inside the graph).
        halo_px: least overlap at which a tiled frame gives the same maps as a whole one (>= half the receptive field,
            a multiple of ``stride``), in pixels of the model's grid.
        target_pixel_size_um: pixel size of the model's grid; None: frames go in as they are.
        training_pixel_size_um: the pixel size that all training frames had; None when it was unknown or differed.
        demands_pixel_size: a frame of unknown pixel size is refused; when False, it is taken to have
            ``training_pixel_size_um`` and the result says so.
        objects: how objects are cut from the maps.
    """

    format_version: Literal[1] = 1
    name: Name
    version: SemVer
    channels: tuple[ChannelName, ...] = Field(min_length=1)
    heads: tuple[Head, ...] = Field(min_length=1)
    stride: int = Field(ge=1, le=256)
    halo_px: int = Field(ge=0, le=2048)
    target_pixel_size_um: float | None = Field(default=None, gt=0)
    training_pixel_size_um: float | None = Field(default=None, gt=0)
    demands_pixel_size: bool = False
    objects: ObjectParams = ObjectParams(
        foreground_threshold=0.5, seed_threshold=0.5, smooth_passes=2, min_seed_area_px=3, min_area_px=30
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.channels)) != len(self.channels):
            raise ValueError("channel names must differ")
        if len({h.name for h in self.heads}) != len(self.heads):
            raise ValueError("head names must differ")
        if self.halo_px % self.stride:
            raise ValueError("halo_px must be a multiple of stride")
        if (
            self.target_pixel_size_um is not None
            and not self.demands_pixel_size
            and self.training_pixel_size_um is None
        ):
            raise ValueError(
                "a model with target_pixel_size_um must demand the pixel size or name training_pixel_size_um"
            )
        return self

    def head(self, kind: str) -> Head | None:
        """The first head of a kind, or None."""
        return next((h for h in self.heads if h.kind == kind), None)


class Lineage(Record):
    """Where a model comes from; digests only, so that it is the same in every folder.

    Attributes:
        data_set: digest of the data set version it was trained on.
        training_run: digest of the training record.
        project_commit: commit of the user's project; None when the project is not in git.
        project_dirty: the project had uncommitted changes; None when not in git.
        environment: digest of the locked environment (names and versions of the installed packages).
        cellfleet_version: the program that trained and exported it.
    """

    data_set: Sha256
    training_run: Sha256
    project_commit: str | None
    project_dirty: bool | None
    environment: Sha256
    cellfleet_version: str


class Variant(Record):
    """One file of a model for one engine and precision.

    Attributes:
        engine: ``onnxruntime``, ``openvino`` or ``tensorrt``.
        precision: ``fp32`` or ``int8``.
        file: path inside the model folder and the bundle, always ``/``-separated.
        sha256: digest of that file.
        golden_ap50: AP@0.5 that was seen on the golden frames when the variant was made.
        least_golden_ap50: least AP@0.5 that a device must reach on the golden frames.
    """

    engine: Literal["onnxruntime", "openvino", "tensorrt"]
    precision: Literal["fp32", "int8"]
    file: str
    sha256: Sha256
    golden_ap50: float | None = None
    least_golden_ap50: float | None = None

    @property
    def name(self) -> str:
        """``engine/precision``, as users name it."""
        return f"{self.engine}/{self.precision}"
