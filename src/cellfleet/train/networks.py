"""The network: MONAI's U-Net with named heads. It works on normalised pixels; ``export`` wraps it into the ONNX contract.

Source: O. Ronneberger, P. Fischer, T. Brox, "U-Net", MICCAI 2015, arXiv:1505.04597; residual units as in MONAI's UNet
(E. Kerfoot et al. 2018). Batch normalisation, since instance normalisation would make a tile depend on its own mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Norm
from monai.networks.nets import UNet
from torch import Tensor, nn

from cellfleet.bundle.spec import Head

DEFAULT_HEADS = (Head(name="foreground", kind="foreground"), Head(name="distance", kind="distance"))


class HeadedUNet(nn.Module):
    """A U-Net whose output channels are dealt out to heads.

    Args:
        channels: number of input channels.
        features: channels of the levels, top first.
        residual_units: residual units per level.
        heads: outputs; each takes ``head.channels`` channels.
    """

    def __init__(self, channels: int, features: Sequence[int], residual_units: int, heads: Sequence[Head]) -> None:
        super().__init__()
        self.heads = tuple(heads)
        # The top level keeps its features and the heads are a 1 x 1 convolution on them: as MONAI's own outputs they would
        # be squeezed through so few channels that two heads could not both be learnt.
        self.net = UNet(
            spatial_dims=2,
            in_channels=channels,
            out_channels=features[0],
            channels=tuple(features),
            strides=(2,) * (len(features) - 1),
            num_res_units=residual_units,
            act="RELU",
            norm=Norm.BATCH,
        )
        self.top = nn.Conv2d(features[0], sum(h.channels for h in heads), 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits of every head, [N,c,H,W] each, of normalised pixels [N,C,H,W]; H and W multiples of the stride."""
        return tuple(torch.split(self.top(torch.relu(self.net(x))), [h.channels for h in self.heads], dim=1))


def stride_of(features: Sequence[int]) -> int:
    """Height and width must be multiples of this."""
    return int(2 ** (len(features) - 1))


def probabilities(heads: Sequence[Head], logits: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Sigmoid for foreground and distance, softmax over the channels for classes."""
    pairs = zip(heads, logits, strict=True)
    return tuple(torch.softmax(x, 1) if h.kind == "classes" else torch.sigmoid(x) for h, x in pairs)


def receptive_radius(network: HeadedUNet, channels: int) -> int:
    """How far, in pixels, an output pixel can see: found by following which inputs have a gradient.

    Every weight is made positive on a copy and the activations are linear there, so nothing cancels and nothing is cut off.
    """
    stride = 2 ** (len(network.net.channels) - 1)
    side = 64 * stride
    probe = _linear_copy(network)
    reach = 0
    # The reach depends on where the pixel lies between the strides, so all phases along one axis are tried.
    for phase in range(stride):
        centre = side // 2 + phase
        x = torch.ones(1, channels, stride, side, dtype=torch.float64, requires_grad=True)
        out = sum(y[0, :, 0, centre].sum() for y in probe(x))
        assert isinstance(out, Tensor)
        (gradient,) = torch.autograd.grad(out, x)
        seen = torch.nonzero(gradient.abs().sum((0, 1, 2))).flatten()
        reach = max(reach, centre - int(seen.min()), int(seen.max()) - centre)
    return reach


def _linear_copy(network: HeadedUNet) -> HeadedUNet:
    first = network.net.model[0]
    first_conv = next(m for m in first.modules() if isinstance(m, nn.Conv2d))
    copy = HeadedUNet(first_conv.in_channels, network.net.channels, network.net.num_res_units, network.heads).double()
    for name, module in list(copy.named_modules()):
        if isinstance(module, nn.ReLU | nn.BatchNorm2d):
            parent = copy.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], nn.Identity())
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.fill_(1.0 / max(1, parameter[0].numel()))
    return copy.eval()
