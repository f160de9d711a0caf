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
        default=("keys/decision.pem.pub",), description="public keys that verify decision records"
    )
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8460, ge=0, le=65535, description="port to listen on (0: a free one)")
    public_url: str = Field(
        default="", description="address by which users and devices reach the server (default: the listening address)"
    )
    poll_s: float = Field(default=60, gt=0, le=86400, description="seconds between two polls of a device")
    tick_s: float = Field(default=5, gt=0, le=3600, description="seconds between two evaluations of deployments")
    device_token_s: float = Field(
        default=3600, ge=10, le=86400, description="lifetime of a device's access token, seconds"
    )
    session_s: float = Field(default=43200, ge=60, description="lifetime of a user's session, seconds")
    silent_after_s: float = Field(
        default=300, gt=0, description="a device without a report for this time is silent, seconds"
    )
    timestamp_s: float = Field(
        default=86400, ge=30, description="lifetime of the timestamp, seconds; renewed at half of it"
    )
    director_s: float = Field(
        default=86400, ge=30, description="lifetime of the director's metadata, seconds; renewed at half of it"
    )
    max_body_mb: float = Field(
        default=16, gt=0, description="maximum size of a request other than an artifact or an upload"
    )
    max_artifact_mb: float = Field(default=2048, gt=0, description="maximum size of an artifact")
    max_requests_per_min: int = Field(
        default=1200, ge=1, description="maximum requests per minute of one device, token or session"
    )
    max_logins_per_min: int = Field(default=10, ge=1, description="maximum sign-ins per minute for one name or address")


class DeviceSection(Section):
    """[device]: an instrument."""

    name: str = Field(default="", description="name of the instrument, as on its label")
    server: str = Field(default="", description="address of the fleet server; empty: an instrument without a server")
    software: str = Field(default="", description="command of the segmenter program (default: cellfleet's own)")
    variant: str = Field(
        default="", description="engine/precision to use (default: the fastest variant that passes on this instrument)"
    )
    threads: int = Field(default=0, ge=0, description="CPU threads of the segmenter (0: all cores)")
    min_free_mb: float = Field(default=1024, ge=0, description="free disk below which the camera waits")
    thumbnail_every: int = Field(default=1, ge=0, description="make a thumbnail of every n-th frame (0: none)")
    overlays: bool = Field(default=True, description="write an overlay beside every mask")
    network_timeout_s: float = Field(default=10, gt=0, description="timeout of a request to the server")
    min_bytes_per_s: float = Field(
        default=1024, ge=0, description="minimum download rate; a slower download is aborted"
    )


class CameraSection(Section):
    """[camera]: where frames come from."""

    kind: Literal["replay", "folder"] = Field(
        default="folder", description="replay: replay a data set; folder: watch a folder"
    )
    source: str = Field(default="incoming", description="folder of images to replay or to watch")
    interval_s: float = Field(default=60, gt=0, description="replay: time between frames")
    frames_per_experiment: int = Field(default=60, ge=1, description="replay: frames of one experiment")
    loop: bool = Field(default=True, description="replay: start again at the end")
    max_frames: int = Field(default=0, ge=0, description="replay: stop after this number of frames (0: never)")
    settle_s: float = Field(default=2, gt=0, description="folder: a file unchanged for this time is complete, seconds")
    idle_s: float = Field(
        default=3600, gt=0, description="folder: an experiment ends after this time without a new file, seconds"
    )
    channels: tuple[str, ...] = Field(
        default=("phase",), description="names of the channels, in the order of the files"
    )
    pixel_size_um: float | None = Field(default=None, gt=0, description="pixel size if the files do not give it")
    plate: str = Field(default="", description="name of the plate")
    plate_format: Literal[6, 12, 24, 48, 96, 384] = Field(default=96, description="number of wells of the plate")
    wells: tuple[str, ...] = Field(default=("A1",), description="replay: wells, imaged in turn")
    inhibit_updates: bool = Field(default=False, description="block updates while an experiment runs")


class AgentSection(Section):
    """[agent]: updates, monitoring and reports of the instrument. A desired state may override settings of updates."""

    tick_s: float = Field(default=1, gt=0, le=60, description="seconds between two ticks of the agent")
    min_golden_ap50: float = Field(default=0.4, ge=0, le=1, description="self-test: minimum AP@0.5 on golden frames")
    max_golden_loss_ap50: float = Field(
        default=0.1, ge=0, le=1, description="self-test: maximum loss of AP@0.5 on the active bundle's golden frames"
    )
    selftest_max_ms: float = Field(default=20000, gt=0, description="self-test: maximum time of one golden frame, ms")
    selftest_max_memory_mb: float = Field(default=4096, gt=0, description="self-test: maximum memory")
    probation_frames: int = Field(default=20, ge=1, description="probation: frames to segment within the limits")
    probation_s: float = Field(default=86400, gt=0, description="probation: maximum wait for these frames, seconds")
    probation_max_slowdown: float = Field(
        default=2.0, ge=1, description="probation: maximum ratio of the frame time to that of the previous slot"
    )
    probation_max_ms: float = Field(default=10000, gt=0, description="probation: maximum median time of a frame, ms")
    probation_max_memory_mb: float = Field(default=4096, gt=0, description="probation: maximum memory of the segmenter")
    probation_max_errors: int = Field(default=1, ge=0, description="probation: maximum number of failures")
    frame_timeout_s: float = Field(default=120, gt=0, description="a segmenter that takes longer is replaced, seconds")
    retry_s: float = Field(
        default=5, gt=0, description="first wait after a failure, seconds; doubled up to 100 times this value"
    )
    keep_slots: int = Field(default=3, ge=2, description="number of slots to keep on the disk")
