"""Losses: binary cross-entropy and Dice for the foreground, weighted smooth L1 for the distance, cross-entropy for classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor

from cellfleet.bundle.spec import Head

_DISTANCE_WEIGHT = 3.0


def loss_of(heads: Sequence[Head], logits: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Sum of the heads' losses.

    Args:
        heads: the network's heads.
        logits: per head [N,c,H,W].
        targets: [N,T,H,W], a channel per head (see ``targets_of``).
    """
    total = torch.zeros((), dtype=targets.dtype)
    for i, (head, x) in enumerate(zip(heads, logits, strict=True)):
        y = targets[:, i : i + 1]
        if head.kind == "foreground":
            total = total + functional.binary_cross_entropy_with_logits(x, y) + dice_loss(torch.sigmoid(x), y)
        elif head.kind == "distance":
            total = total + _DISTANCE_WEIGHT * distance_loss(torch.sigmoid(x), y)
        else:
            total = total + functional.cross_entropy(x, y[:, 0].long())
    return total


def dice_loss(p: Tensor, y: Tensor) -> Tensor:
    """1 - Dice over the whole batch (F. Milletari et al., V-Net, 2016, arXiv:1606.04797, without squares)."""
    return 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)


def distance_loss(p: Tensor, y: Tensor) -> Tensor:
    """Smooth L1, cell pixels and background counted half each however many there are."""
    error = functional.smooth_l1_loss(p, y, reduction="none", beta=0.1)
    inside = (y > 0).to(error.dtype)
    cells = (error * inside).sum() / (inside.sum() + 1)
    background = (error * (1 - inside)).sum() / ((1 - inside).sum() + 1)
    return cells + background
