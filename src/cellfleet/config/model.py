"""The sections of a project file that concern data, training, evaluation and segmentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Base of settings: frozen, no unknown keys, no infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelSection(Section):
    """[model]: name and description of the model."""

    name: str = Field(
        default="cells",
        pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$",
        description="name of the model (lower case, digits, - . _)",
    )
    version: str = Field(
        default="0.1.0", pattern=r"^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$", description="SemVer version of the model"
    )
    description: str = Field(default="", description="one sentence for the model card")
    license: str = Field(default="CC-BY-4.0", description="SPDX identifier of the model's licence")
    authors: tuple[str, ...] = Field(default=("unnamed",), description="names for the model card")


class DataSection(Section):
    """[data]: where the images are and how they are split."""

    source: str = Field(default="data", description="folder with images/ and masks/, or a COCO JSON file")
    images: str = Field(default="", description="COCO only: folder of the image files (default: beside the JSON)")
    channels: tuple[str, ...] = Field(
        default=("phase",), description="names of the channels, in the order of the files"
    )
    pixel_size_um: float | None = Field(
        default=None, gt=0, description="pixel size if neither the file nor index.csv gives it"
    )
    manifest: str = Field(default="dataset.json", description="where `data freeze` writes the data set version")
    validation_fraction: float = Field(default=0.15, gt=0, lt=1, description="fraction of the images for validation")
    test_fraction: float = Field(default=0.2, gt=0, lt=1, description="fraction of the images held out for evaluation")
    min_object_area_px: int = Field(default=10, ge=0, description="smaller objects are reported as fragments")


class TrainingSection(Section):
    """[training]: network, budget and augmentation."""

    runs: str = Field(default="runs", description="folder of training runs")
    seed: int = Field(default=0, ge=0, lt=2**63, description="seed of all randomness in training")
    epochs: int = Field(default=60, ge=1, description="budget in epochs")
    minutes: float | None = Field(
        default=None, gt=0, description="budget in minutes; stops training early (not reproducible)"
    )
    patience: int = Field(
        default=0, ge=0, description="stop after this number of validations without improvement (0: never)"
    )
    validate_every: int = Field(default=5, ge=1, description="epochs between validations")
    batch_size: int = Field(default=8, ge=1, description="crops in a batch")
    crop_px: int = Field(default=192, ge=32, description="side of a training crop, in pixels of the model's grid")
    crops_per_image: int = Field(default=2, ge=1, description="crops from each image per epoch")
    learning_rate: float = Field(default=2e-3, gt=0, description="peak learning rate (AdamW, one cycle)")
    weight_decay: float = Field(default=1e-4, ge=0, description="weight decay of AdamW")
    features: tuple[int, ...] = Field(default=(16, 32, 64, 128), description="channels of the U-Net, level by level")
    residual_units: int = Field(default=2, ge=0, description="residual units per level of the MONAI UNet")
    target_pixel_size_um: Annotated[float, Field(gt=0)] | Literal["auto", "native"] = Field(
        default="auto",
        description="pixel size of the model's grid in um; auto: from the cell size; native: that of the images",
    )
    cell_diameter_px: float = Field(
        default=28.0, gt=4, description="target median cell diameter on the model's grid for auto"
    )
    demands_pixel_size: bool = Field(default=False, description="refuse frames of unknown pixel size")
    augmentation: float = Field(default=1.0, ge=0, le=2, description="strength of augmentation (0: none)")
    threads: int = Field(default=0, ge=0, description="CPU threads (0: all cores)")
    tracking_uri: str = Field(default="", description="MLflow tracking URI (default: a SQLite file in the runs folder)")
    experiment: str = Field(default="cellfleet", description="MLflow experiment")


class GateSection(Section):
    """[gate]: thresholds that a model must meet to be released; an absent threshold is not checked."""

    min_ap50: float | None = Field(default=0.5, ge=0, le=1, description="minimum AP@0.5 on the held-out split")
    min_map: float | None = Field(default=None, ge=0, le=1, description="minimum mean AP over IoU 0.5-0.95")
    min_dice: float | None = Field(default=0.7, ge=0, le=1, description="minimum Dice of the foreground")
    max_count_error: float | None = Field(default=None, ge=0, description="maximum relative count error")
    max_confluence_error: float | None = Field(
        default=None, ge=0, description="maximum confluence error, percentage points"
    )
    min_stratum_ap50: float | None = Field(default=0.3, ge=0, le=1, description="minimum AP@0.5 in every stratum")
    max_champion_loss_ap50: float | None = Field(
        default=0.01, ge=0, le=1, description="maximum loss of AP@0.5 against the champion"
    )


class OptimizeSection(Section):
    """[optimize]: the INT8 variant and its gate."""

    int8: bool = Field(default=True, description="build and measure an INT8 variant")
    calibration_frames: int = Field(default=16, ge=1, description="training frames for calibration")
    calibration: Literal["minmax", "entropy", "percentile"] = Field(default="minmax", description="calibration method")
    max_ap50_loss: float = Field(default=0.01, ge=0, le=1, description="maximum loss of AP@0.5 of a kept variant")
    keep_fp32: tuple[str, ...] = Field(
        default=(),
        description="substrings of node or weight names that stay fp32 (normalisation and heads always stay fp32)",
    )
    openvino: bool = Field(default=True, description="also measure both networks with OpenVINO, if it is installed")


class BundleSection(Section):
    """[bundle]: content of the bundle."""

    out: str = Field(default="bundles", description="folder of bundles")
    golden_frames: int = Field(default=3, ge=1, le=16, description="frames for the self-test")
    golden_px: int = Field(default=384, ge=64, description="maximum side of a golden frame, pixels")
    golden_margin_ap50: float = Field(
        default=0.02, ge=0, le=1, description="maximum loss of AP@0.5 of a device on golden frames"
    )


class EvaluationSection(Section):
    """[evaluation]: the report."""

    out: str = Field(default="evaluations", description="folder of evaluations")
    worst_frames: int = Field(default=12, ge=1, description="number of worst frames in the report")
    approver: str = Field(default="", description="approver; written to the decision record")


class SegmentSection(Section):
    """[segment]: segmentation of frames."""

    variant: str = Field(
        default="", description="engine/precision to use (default: the fastest variant that passed on this machine)"
    )
    tile_px: int = Field(default=1024, ge=64, description="frames with a longer side (on the model's grid) are tiled")
    threads: int = Field(default=0, ge=0, description="CPU threads (0: all cores)")


class LineageSection(Section):
    """[lineage]: records and keys."""

    records: str = Field(default="records", description="folder of signed and digested records")
    key: str = Field(
        default="keys/decision.pem", description="Ed25519 private key that signs decision records (made if missing)"
    )
