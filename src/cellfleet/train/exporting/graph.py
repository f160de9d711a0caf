"""The network as instruments run it: normalisation, padding and cropping inside the graph; batch norm folded away."""

from __future__ import annotations

import copy

import torch
from monai.networks.blocks.convolutions import Convolution
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cellfleet.train.networks import HeadedUNet, probabilities, stride_of


def folded(network: HeadedUNet) -> HeadedUNet:
    """A copy in which every batch norm is part of the convolution before it; same outputs, fewer nodes."""
    copied = copy.deepcopy(network).eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for block in copied.modules():
        if isinstance(block, Convolution) and hasattr(block, "adn") and hasattr(block.adn, "N"):
            conv = block.conv
            block.conv = fuse_conv_bn_eval(conv, block.adn.N, transpose=isinstance(conv, nn.ConvTranspose2d))
            block.adn.N = nn.Identity()
    return copied  # type: ignore[no-any-return]


class ContractGraph(nn.Module):
    """``image`` [N,C,H,W] raw values, ``mean`` and ``std`` [N,C] -> one output per head [N,c,H,W], for any H and W."""

    def __init__(self, network: HeadedUNet) -> None:
        super().__init__()
        self.network = folded(network)
        self.stride = stride_of(network.net.channels)

    def forward(self, image: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, ...]:
        """Probabilities of every head."""
        height, width = image.shape[2], image.shape[3]
        x = (image - mean[:, :, None, None]) / std[:, :, None, None]
        # Replicate the last row and column up to a multiple of the stride; an index with a limit works from 1 x 1 on.
        rows = torch.arange((height + self.stride - 1) // self.stride * self.stride).clamp(max=height - 1)
        columns = torch.arange((width + self.stride - 1) // self.stride * self.stride).clamp(max=width - 1)
        x = torch.index_select(torch.index_select(x, 2, rows), 3, columns)
        out = probabilities(self.network.heads, self.network(x))
        return tuple(y[:, :, :height, :width] for y in out)
