"""The sections of a project file that concern the fleet server and an instrument."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cellfleet.config.model import Section


class FleetSection(Section):
    """[fleet]: the fleet server."""

    database: str = Field(default="sqlite:///fleet.db", description="SQLAlchemy URL: SQLite or PostgreSQL (psycopg)")
    store: str = Field(default="fleet-store", description="folder of artifacts, thumbnails and uploads")
    trust: str = Field(default="trust", description="folder of `trust init`: metadata and the online keys")
    decision_keys: tuple[str, ...] = Field(
        default=("keys/decision.pem.pub",), description="public keys whose decision records count"
    )
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8460, ge=0, le=65535, description="port to listen on (0: a free one)")
    public_url: str = Field(default="", description="address by which people and devices reach it (default: as bound)")
    poll_s: float = Field(default=60, gt=0, le=86400, description="how often devices ask for their desired state")
    tick_s: float = Field(default=5, gt=0, le=3600, description="how often deployments are looked at")
    device_token_s: float = Field(default=3600, ge=10, le=86400, description="life of a device's access token")
    session_s: float = Field(default=43200, ge=60, description="life of a user's session")
    silent_after_s: float = Field(default=300, gt=0, description="a device without a report for so long is silent")
    timestamp_s: float = Field(default=86400, ge=30, description="life of the timestamp; renewed at half of it")
    director_s: float = Field(
        default=86400, ge=30, description="life of the director's metadata; renewed at half of it"
    )
    max_body_mb: float = Field(default=16, gt=0, description="greatest request that is not an artifact or an upload")
    max_artifact_mb: float = Field(default=2048, gt=0, description="greatest artifact")
    max_requests_per_min: int = Field(default=1200, ge=1, description="greatest rate of one device, token or session")
    max_logins_per_min: int = Field(default=10, ge=1, description="greatest rate of sign-ins for one name or address")


class DeviceSection(Section):
    """[device]: an instrument."""

    name: str = Field(default="", description="name of the instrument, as on its label")
    server: str = Field(default="", description="address of the fleet server; empty: a fleet of one")
    software: str = Field(default="", description="command of the segmenter program (default: cellfleet's own)")
    variant: str = Field(default="", description="engine/precision to use (default: the fastest here that passes)")
    threads: int = Field(default=0, ge=0, description="CPU threads of the segmenter (0: all cores)")
    min_free_mb: float = Field(default=1024, ge=0, description="free disk below which the camera waits")
    thumbnail_every: int = Field(default=1, ge=0, description="a thumbnail of every so many frames (0: none)")
    overlays: bool = Field(default=True, description="write an overlay beside every mask")
    network_timeout_s: float = Field(default=10, gt=0, description="timeout of a request to the server")
    min_bytes_per_s: float = Field(default=1024, ge=0, description="a download slower than this is broken off")


class CameraSection(Section):
    """[camera]: where frames come from."""

    kind: Literal["replay", "folder"] = Field(default="folder", description="replay: a data set; folder: watched")
    source: str = Field(default="incoming", description="folder of images: replayed, or watched for new ones")
    interval_s: float = Field(default=60, gt=0, description="replay: time between frames")
    frames_per_experiment: int = Field(default=60, ge=1, description="replay: frames of one experiment")
    loop: bool = Field(default=True, description="replay: begin again at the end")
    max_frames: int = Field(default=0, ge=0, description="replay: stop after so many frames (0: never)")
    settle_s: float = Field(default=2, gt=0, description="folder: a file that did not change for so long is complete")
    idle_s: float = Field(default=3600, gt=0, description="folder: an experiment ends when nothing came for so long")
    channels: tuple[str, ...] = Field(
        default=("phase",), description="names of the channels, in the order of the files"
    )
    pixel_size_um: float | None = Field(default=None, gt=0, description="pixel size where the files do not state it")
    plate: str = Field(default="", description="name of the plate")
    plate_format: Literal[6, 12, 24, 48, 96, 384] = Field(default=96, description="wells of the plate")
    wells: tuple[str, ...] = Field(default=("A1",), description="replay: wells that are visited in turn")
    inhibit_updates: bool = Field(default=False, description="hold updates back while an experiment runs")


class AgentSection(Section):
    """[agent]: how the instrument updates, watches and reports. A desired state may override what concerns updates."""

    tick_s: float = Field(default=1, gt=0, le=60, description="how often the agent looks around")
    min_golden_ap50: float = Field(default=0.4, ge=0, le=1, description="self-test: least AP@0.5 on golden frames")
    max_golden_loss_ap50: float = Field(
        default=0.1, ge=0, le=1, description="self-test: greatest loss of AP@0.5 on the active bundle's golden frames"
    )
    selftest_max_ms: float = Field(default=20000, gt=0, description="self-test: greatest time of one golden frame, ms")
    selftest_max_memory_mb: float = Field(default=4096, gt=0, description="self-test: greatest memory")
    probation_frames: int = Field(
        default=20, ge=1, description="probation: frames that must be segmented within the limits"
    )
    probation_s: float = Field(default=86400, gt=0, description="probation: greatest wait for those frames")
    probation_max_slowdown: float = Field(default=2.0, ge=1, description="probation: greatest time / time before")
    probation_max_ms: float = Field(default=10000, gt=0, description="probation: greatest median time of a frame, ms")
    probation_max_memory_mb: float = Field(
        default=4096, gt=0, description="probation: greatest memory of the segmenter"
    )
    probation_max_errors: int = Field(default=1, ge=0, description="probation: frames that may fail")
    frame_timeout_s: float = Field(default=120, gt=0, description="a segmenter that takes longer hangs and is replaced")
    retry_s: float = Field(default=5, gt=0, description="first wait after a failure; doubled up to a hundredfold")
    keep_slots: int = Field(default=3, ge=2, description="slots that are kept on the disk")
