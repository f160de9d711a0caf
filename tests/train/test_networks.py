"""The network: heads, stride and how far it sees; losses."""

from __future__ import annotations

import math

import pytest
import torch

from cellfleet.train.exporting.graph import folded
from cellfleet.train.losses import loss_of
from cellfleet.train.networks import DEFAULT_HEADS, HeadedUNet, probabilities, receptive_radius, stride_of
from support_training import two_classes


def network(features: tuple[int, ...], units: int, channels: int = 1) -> HeadedUNet:
    """A network with random weights and batch statistics."""
    torch.manual_seed(1)
    net = HeadedUNet(channels, features, units, two_classes())
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return net.eval()


def test_heads_in_their_order() -> None:
    net = network((4, 8, 16), 1, channels=3)
    with torch.inference_mode():
        logits = net(torch.rand(2, 3, 24, 32))
        out = probabilities(net.heads, logits)
    assert [tuple(x.shape) for x in out] == [(2, 1, 24, 32), (2, 1, 24, 32), (2, 2, 24, 32)]
    torch.testing.assert_close(out[2].sum(1), torch.ones(2, 24, 32))
    assert all(0 <= float(x.min()) <= float(x.max()) <= 1 for x in out)


@pytest.mark.parametrize(
    ("features", "units"), [((4, 6), 0), ((4, 6), 1), ((4, 6, 8), 1), ((4, 6, 8), 2), ((2, 2, 2, 2), 1)]
)
def test_it_sees_no_further_than_it_says(features: tuple[int, ...], units: int) -> None:
    net = network(features, units).double()
    radius, stride = receptive_radius(net, 1), stride_of(features)
    side = -(-(4 * radius + 64) // stride) * stride
    seen = 0
    for place in range(side // 2, side // 2 + stride):
        x = torch.rand(1, 1, side, stride, dtype=torch.float64)
        changed = x.clone()
        changed[0, 0, place] += 5
        with torch.inference_mode():
            differs = (torch.cat(net(x), 1) - torch.cat(net(changed), 1)).abs().amax((0, 1, 3)) > 0
        rows = torch.nonzero(differs).flatten()
        seen = max(seen, place - int(rows.min()), int(rows.max()) - place)
    assert seen <= radius
    assert seen >= radius - stride, "a halo far wider than needed costs time"


def test_folding_keeps_the_outputs() -> None:
    net = network((4, 8, 16), 2)
    flat = folded(net)
    assert not [m for m in flat.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    x = torch.randn(2, 1, 32, 24)
    with torch.inference_mode():
        for a, b in zip(net(x), flat(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_the_loss_is_least_for_the_truth() -> None:
    heads = two_classes()
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    distance = mask * 0.7
    targets = torch.cat([mask, distance, mask], 1)
    sure = 20 * (2 * mask - 1)
    right = torch.where(distance > 0, math.log(0.7 / 0.3), -20.0)
    good = float(loss_of(heads, [sure, right, torch.cat([-sure, sure], 1)], targets))
    assert good < 1e-3
    for i in range(3):
        logits = [sure, right, torch.cat([-sure, sure], 1)]
        logits[i] = -logits[i]
        assert float(loss_of(heads, logits, targets)) > good + 0.5


def test_the_loss_of_an_empty_crop_is_a_number() -> None:
    logits = [torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)]
    assert math.isfinite(float(loss_of(DEFAULT_HEADS, logits, torch.zeros(2, 2, 8, 8))))
