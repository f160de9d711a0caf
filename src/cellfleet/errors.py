"""The errors that a user of cellfleet can meet.

::

    CellfleetError              every error that cellfleet raises on purpose; has a .hint
     +-- ConfigError            a setting, a project file, a flag
     +-- StorageError           the disk: full, read-only, missing, a file that changed under us
     +-- DataError              data sets, manifests, splits
     |    +-- ReadError         one image, mask, annotation file or video that cannot be read
     +-- MetricsError           arrays that cannot be compared
     +-- BundleError            a bundle that cannot be built or must not be trusted
     |    +-- (one subclass per way in which a bundle is refused, see cellfleet.bundle.refusals)
     +-- LineageError           records: missing, unsigned, tampered
     +-- SegmentError           a frame or a model that the runtime refuses
     |    +-- EngineError       ONNX Runtime, OpenVINO ... failed or is not installed
     +-- EvaluateError          an evaluation that cannot be made
     |    +-- GateFailed        the numbers are below the thresholds
     +-- TrainError             training or export that cannot go on
     +-- OptimizeError          quantisation that cannot be done
     +-- NetworkError           no connection, a timeout, a connection that broke
     |    +-- (ServerBusy: the fleet server cannot answer now, see cellfleet.api_client)
     +-- WireError              a message that cannot be understood
     +-- TrustError             keys, signatures and metadata of the update repositories
     |    +-- (one subclass per way in which trust is refused, see cellfleet.trust.refusals)
     +-- DeviceError            an instrument that cannot do what was asked
     |    +-- CameraError       a camera or a replayed data set
     +-- FleetError             the fleet server refuses
          +-- (RequestRefused: on the server, see cellfleet.fleet.refusals; ServerRefuses: at its clients, see
               cellfleet.api_client)

Errors of foreign libraries are translated where they are called. Exit codes are decided in ``cellfleet.cli`` alone.
"""

from __future__ import annotations


class CellfleetError(Exception):
    """Base of every error that cellfleet raises on purpose.

    Args:
        message: what went wrong and where (file, setting, frame).
        hint: what the user can do next; one sentence, may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class ConfigError(CellfleetError):
    """A setting, a project file or a flag is wrong."""


class StorageError(CellfleetError):
    """The disk did not do what was asked: full, read-only, missing, or a file that changed."""


class DataError(CellfleetError):
    """A data set, a manifest or a split is wrong."""


class ReadError(DataError):
    """One image, mask, annotation file or video cannot be read."""


class MetricsError(CellfleetError):
    """Arrays that cannot be compared (shapes, dtypes)."""


class BundleError(CellfleetError):
    """A bundle cannot be built, or must not be trusted."""


class LineageError(CellfleetError):
    """A record is missing, unsigned or tampered with."""


class SegmentError(CellfleetError):
    """The runtime refuses a frame or a model."""


class EngineError(SegmentError):
    """An engine (ONNX Runtime, OpenVINO, TensorRT) failed or is not installed."""


class EvaluateError(CellfleetError):
    """An evaluation cannot be made."""


class GateFailed(EvaluateError):
    """The numbers of a candidate are below the thresholds of the policy."""


class TrainError(CellfleetError):
    """Training or export cannot go on."""


class OptimizeError(CellfleetError):
    """A variant cannot be made."""


class NetworkError(CellfleetError):
    """No connection, a timeout, or a connection that broke; it may work later."""


class WireError(CellfleetError):
    """A message of another version, or one that cannot be understood."""


class TrustError(CellfleetError):
    """Metadata of the update repositories must not be trusted, or a key cannot be used."""


class DeviceError(CellfleetError):
    """An instrument cannot do what was asked."""


class CameraError(DeviceError):
    """A camera or a replayed data set gives no frames."""


class FleetError(CellfleetError):
    """The fleet server refuses."""
