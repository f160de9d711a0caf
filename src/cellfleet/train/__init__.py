"""Training and export: the only package that imports torch.

>>> from cellfleet.train import stride_of
>>> stride_of((16, 32, 64, 128))
8
"""

from cellfleet.train import thread_waiting  # noqa: F401  # before torch is loaded
from cellfleet.train.loop import EpochReport, train
from cellfleet.train.networks import HeadedUNet, stride_of
from cellfleet.train.record import TrainingRun, load_run

__all__ = ["EpochReport", "HeadedUNet", "TrainingRun", "load_run", "stride_of", "train"]
