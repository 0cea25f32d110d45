"""The neck: three feature maps of an image and one state of the text become one map.

The released code fixes the grid (that of stage 3), the width, that each map is multiplied by
attention to a single sentence state, and the order: join, 1x1 convolution, CoordConv. How the maps
come to that width and grid is ours.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from medbench_unicrossadapter.config import UniCrossAdapterConfig


class Convolution(nn.Sequential):
    """A convolution without bias, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class Gate(nn.Module):
    """Attention of every place to a single state. Its one weight is 1 whatever the place asks for,
    so it has values and an output projection, but no queries or keys. Starts near 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        nn.init.ones_(self.out.bias)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        """float [R, D] -> factors [R, D, 1, 1]."""
        factors: torch.Tensor = self.out(self.value(state))[..., None, None]
        return factors


class Neck(nn.Module):
    """Maps of stage 2 (twice the grid), stage 3 (the grid) and the pooling (half of it)."""

    def __init__(self, config: UniCrossAdapterConfig) -> None:
        super().__init__()
        width, first = config.text_width, config.vision_width * 8
        self.enter = nn.ModuleList(
            Convolution(channels, width) for channels in (first, 2 * first, config.embed_dim)
        )
        self.gates = nn.ModuleList(Gate(width) for _ in range(3))
        self.join = Convolution(3 * width, width)
        self.coordinates = Convolution(width + 2, width, kernel=3)

    def forward(
        self, second: torch.Tensor, third: torch.Tensor, pooled: torch.Tensor, state: torch.Tensor
    ) -> torch.Tensor:
        """Maps float [R, C, h, h], and states [R, D] -> [R, D, grid, grid]."""
        maps = [enter(x) for enter, x in zip(self.enter, (second, third, pooled), strict=True)]
        maps[0] = F.avg_pool2d(maps[0], 2)
        maps[2] = F.interpolate(maps[2], scale_factor=2, mode="nearest")
        x = self.join(
            torch.cat([x * gate(state) for x, gate in zip(maps, self.gates, strict=True)], dim=1)
        )
        line = torch.linspace(-1, 1, x.shape[-1], device=x.device, dtype=x.dtype)
        places = torch.stack(torch.meshgrid(line, line, indexing="ij"))  # [2, grid, grid]
        found: torch.Tensor = self.coordinates(
            torch.cat([x, places.expand(len(x), -1, -1, -1)], dim=1)
        )
        return found
