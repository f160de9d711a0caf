"""What changes while training: network, its running average, optimiser and schedule."""

from __future__ import annotations

import copy
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellfleet.bundle.spec import Head
from cellfleet.config.model import TrainingSection
from cellfleet.errors import TrainError
from cellfleet.ports import write_atomic
from cellfleet.train.losses import loss_of
from cellfleet.train.networks import HeadedUNet
from cellfleet.train.samples import Crops

_EMA_DECAY = 0.995


@dataclass
class State:
    """Everything that a checkpoint must hold beside the progress.

    Attributes:
        network: the network that is trained.
        ema: the exponential moving average of its weights; it is validated, kept and exported.
        optimizer: AdamW.
        scheduler: one-cycle learning rate over the whole budget of epochs.
    """

    network: HeadedUNet
    ema: HeadedUNet
    optimizer: torch.optim.AdamW
    scheduler: torch.optim.lr_scheduler.OneCycleLR

    @classmethod
    def new(
        cls, section: TrainingSection, channels: tuple[str, ...], heads: tuple[Head, ...], *, steps_per_epoch: int
    ) -> State:
        """Fresh weights from the seed that was set before."""
        network = HeadedUNet(len(channels), section.features, section.residual_units, heads)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(network.parameters(), lr=section.learning_rate, weight_decay=section.weight_decay)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, section.learning_rate, total_steps=max(2, section.epochs * steps_per_epoch), pct_start=0.15
        )
        return cls(network, copy.deepcopy(network), optimizer, scheduler)

    @property
    def learning_rate(self) -> float:
        """The current one."""
        return float(self.optimizer.param_groups[0]["lr"])

    def train_epoch(self, crops: Crops, epoch: int, batch_size: int) -> float:
        """Train on every crop once; returns the mean loss.

        Raises:
            TrainError: the loss is not a number.
        """
        self.network.train()
        order = crops.order(epoch)
        losses = []
        for start in range(0, len(order), batch_size):
            pairs = [crops.crop(epoch, int(i)) for i in order[start : start + batch_size]]
            images, targets = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
            losses.append(self._step(images.contiguous(memory_format=torch.channels_last), targets))
        loss = float(np.mean(losses))
        if not np.isfinite(loss):
            raise TrainError(
                f"the loss is {loss} in epoch {epoch}",
                hint="lower training.learning_rate, or check the images with data validate",
            )
        return loss

    def _step(self, images: Tensor, targets: Tensor) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = loss_of(self.network.heads, self.network(images), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.scheduler.step()
        # Early on the average follows quickly, so that the first random weights are soon forgotten.
        step = self.scheduler.last_epoch
        decay = min(_EMA_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(self.ema.state_dict().values(), self.network.state_dict().values(), strict=True):
                if mean.dtype.is_floating_point:
                    mean.lerp_(now, 1 - decay)
                else:
                    mean.copy_(now)
        return float(loss.item())

    def tensors(self) -> dict[str, Any]:
        """State dicts by name."""
        return {
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def load(self, stored: dict[str, Any]) -> None:
        """Take over what a checkpoint holds.

        Raises:
            TrainError: it does not fit the network.
        """
        try:
            self.network.load_state_dict(stored["network"])
            self.ema.load_state_dict(stored["ema"])
            self.optimizer.load_state_dict(stored["optimizer"])
            self.scheduler.load_state_dict(stored["scheduler"])
        except (KeyError, RuntimeError, ValueError) as e:
            raise TrainError(
                f"the checkpoint does not fit the network: {e}", hint="train again without --resume"
            ) from e


def save_best(path: Path, state: State) -> None:
    """Write the averaged weights, by which the network is judged and exported."""
    # Through memory, since torch writes the name of the file into the file.
    buffer = io.BytesIO()
    torch.save(state.ema.state_dict(), buffer)
    write_atomic(path, buffer.getbuffer())


def load_network(path: Path, channels: int, section: TrainingSection, heads: tuple[Head, ...]) -> HeadedUNet:
    """The network with weights that ``save_best`` wrote, ready for inference.

    Raises:
        TrainError: absent, damaged, or of another network.
    """
    network = HeadedUNet(channels, section.features, section.residual_units, heads)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError as e:
        raise TrainError(f"there are no weights {path}", hint="train first: `cellfleet train`") from e
    except Exception as e:  # torch raises pickle, zip and runtime errors alike
        raise TrainError(f"{path} holds no weights of this network: {e}", hint="train again") from e
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
