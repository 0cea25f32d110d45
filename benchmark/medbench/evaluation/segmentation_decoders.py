"""The decoders that turn frozen feature maps into masks: which one depends on the maps alone.

- One map, the patch tokens of a transformer: `PatchDecoder`.
- Several maps whose coarsest is one global vector: `SkipDecoder`, a U-Net.
- Any other pyramid: `PyramidDecoder`, the harness's own.

The first two are those of Adaptor (arXiv 2401.01179, Table 3): 10.4 M parameters on 768 channels,
and 20.1 M on a vector of 768 with skips of 64, 256, 512 and 1,024 channels. Widths 512, 256, 128,
64 and the counts are published; kernel sizes, normalisation and nearest-neighbour doubling are read
off the released code, and give those counts. Inferred: what happens at other sizes of images and
maps than its 224 and 896 px.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

Maps = Sequence[torch.Tensor]

#: Channels of the first block at the published size; each block halves them.
PUBLISHED_WIDTH = 512
#: Fewest channels of a block.
NARROWEST = 16
#: Side at which the U-Net's transposed convolutions leave the global vector.
NECK = 7


def build_decoder(
    channels: Sequence[int],
    sides: Sequence[int],
    size: int,
    image: int,
    width: int = PUBLISHED_WIDTH,
) -> nn.Module:
    """The decoder for maps of these shapes, untrained.

    Called with maps float [B, D_i, h_i, h_i], finest first, it gives logits float [B, size, size].

    Args:
        channels: D of each map, finest first.
        sides: h of each map (square), finest first.
        size: side of the masks in pixels.
        image: side of the images that the maps are of, in pixels.
        width: channels of the first block; each block halves them, down to `NARROWEST`.
    """
    if len(channels) == 1 and sides[0] > 1:
        return PatchDecoder(channels[0], sides[0], size, image, width)
    if len(channels) > 1 and sides[-1] == 1 and sides[-2] > 1:
        return SkipDecoder(channels, sides, size, width)
    return PyramidDecoder(channels, sides, size, width)


class Enlarged(nn.Module):
    """A decoder's logits [B, s, s], bilinearly at [B, size, size]."""

    def __init__(self, decoder: nn.Module, size: int) -> None:
        super().__init__()
        self.decoder, self.size = decoder, size

    def forward(self, maps: Maps) -> torch.Tensor:
        """float maps [B, D_i, h_i, h_i], finest first -> logits [B, size, size]."""
        logits = self.decoder(maps)[:, None]
        side = (self.size, self.size)
        return F.interpolate(logits, side, mode="bilinear", align_corners=False)[:, 0]


class PatchDecoder(nn.Module):
    """One map [B, D, h, h], such as a transformer's patch tokens, to one logit per pixel.

    A 3 x 3 convolution, then blocks of convolution and doubling that end at the image's side. The
    first convolution leaves out the padding where that alone makes the sides meet (16 x 16 patches
    of 14 px: 14 x 14, doubled four times to 224); else the map is padded and resized (64 x 64 of
    896 px: to 56 x 56).
    """

    def __init__(self, channels: int, side: int, size: int, image: int, width: int) -> None:
        super().__init__()
        self.size = size
        steps = max(1, round(math.log2(image / side)))
        self.grid = max(2, round(image / 2**steps))
        bare = self.grid == side - 2
        # 768 to 768 as published; a narrower decoder is narrower here too
        first = min(channels, width * 3 // 2)
        self.entry = _block(channels, first, padding=0 if bare else 1)
        widths = [first, *_widths(width, steps)]
        self.blocks = nn.ModuleList(_block(before, after) for before, after in pairwise(widths))
        self.exit = nn.Conv2d(widths[-1], 1, 3, padding=1)
        _initialise(self)

    def forward(self, maps: Maps) -> torch.Tensor:
        x = _resized(self.entry(maps[0].float()), self.grid)
        for block in self.blocks:
            x = F.interpolate(block(x), scale_factor=2)
        return _pixels(self.exit(x), self.size)


class SkipDecoder(nn.Module):
    """A global vector [B, D, 1, 1] and the maps it was made of, to one logit per pixel: a U-Net.

    The vector is spread over 7 x 7 by two transposed convolutions, and doubled further where the
    maps are larger than those of 224 px. At each map, coarse to fine, a transposed convolution
    doubles the side, the map is concatenated, and two convolutions follow; one more doubling ends
    at the image's side. Where sides do not meet, the decoder's own are resized to the map's.
    """

    def __init__(
        self, channels: Sequence[int], sides: Sequence[int], size: int, width: int
    ) -> None:
        super().__init__()
        self.size = size
        self.start = max(2, sides[-2] // 2)
        self.neck = nn.Sequential(
            nn.ConvTranspose2d(channels[-1], width, 3, bias=False),
            nn.ConvTranspose2d(width, width, 3, stride=2, bias=False),
        )
        # one kernel for every further doubling, as in the released code
        self.doublings = max(0, int(math.log2(self.start / NECK)))
        self.further = (
            nn.ConvTranspose2d(width, width, 2, stride=2, bias=False) if self.doublings else None
        )
        skips = list(reversed(channels[:-1]))
        widths = _widths(width, len(skips) + 1)
        befores = [width, *widths[: len(skips) - 1]]
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 2, stride=2)
            for before, after in zip(befores, widths[: len(skips)], strict=True)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(_block(after + skip, after), _block(after, after))
            for skip, after in zip(skips, widths[: len(skips)], strict=True)
        )
        self.last = nn.ConvTranspose2d(widths[-2], widths[-1], 2, stride=2)
        self.exit = nn.Conv2d(widths[-1], 1, 1)
        _initialise(self)

    def forward(self, maps: Maps) -> torch.Tensor:
        x = self.neck(maps[-1].float())
        for _ in range(self.doublings):
            assert self.further is not None
            x = self.further(x)
        x = _resized(x, self.start)
        skips = list(reversed(maps[:-1]))
        for up, block, skip in zip(self.ups, self.blocks, skips, strict=True):
            x = torch.cat([_resized(up(x), skip.shape[-1]), skip.float()], dim=1)
            x = block(x)
        return _pixels(self.exit(self.last(x)), self.size)


class PyramidDecoder(nn.Module):
    """Feature maps [B, D_i, h_i, h_i] of any pyramid, to one logit per pixel.

    The coarsest map is upsampled by doubling, a 3 x 3 convolution behind each step, and each finer
    one is concatenated where sizes meet (assumed: no paper has it).
    """

    def __init__(
        self, channels: Sequence[int], sides: Sequence[int], size: int, width: int
    ) -> None:
        super().__init__()
        self.size = size
        self.entry = nn.Conv2d(channels[-1], width, 1)
        steps = max(1, math.ceil(math.log2(size / sides[-1])))
        self.blocks = nn.ModuleList()
        self.places: list[int] = []  # which finer map is met after each doubling, or -1
        side, waiting = sides[-1], list(range(len(channels) - 2, -1, -1))
        for _ in range(steps):
            side, after = side * 2, max(NARROWEST, width // 2)
            place = -1
            if waiting and sides[waiting[0]] <= side:
                place = waiting.pop(0)
            extra = channels[place] if place >= 0 else 0
            self.places.append(place)
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(width + extra, after, 3, padding=1),
                    nn.GroupNorm(min(8, after), after),
                    nn.GELU(),
                )
            )
            width = after
        self.exit = nn.Conv2d(width, 1, 1)

    def forward(self, maps: Maps) -> torch.Tensor:
        x = self.entry(maps[-1].float())
        for block, place in zip(self.blocks, self.places, strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            if place >= 0:
                skip = F.interpolate(
                    maps[place].float(), x.shape[-2:], mode="bilinear", align_corners=False
                )
                x = torch.cat([x, skip], dim=1)
            x = block(x)
        return _pixels(self.exit(x), self.size)


def _widths(first: int, count: int) -> list[int]:
    """Channels of each block, halved from one to the next.

    >>> _widths(512, 4), _widths(64, 4)
    ([512, 256, 128, 64], [64, 32, 16, 16])
    """
    return [max(NARROWEST, first >> k) for k in range(count)]


def _block(before: int, after: int, padding: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=padding), nn.BatchNorm2d(after), nn.ReLU()
    )


def _initialise(decoder: nn.Module) -> None:
    """He's normal start of the convolutions, as in the released code."""
    for part in decoder.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


def _resized(x: torch.Tensor, side: int) -> torch.Tensor:
    """[B, D, h, h] -> [B, D, side, side] by nearest neighbours; the very same where they agree."""
    return x if x.shape[-1] == side else F.interpolate(x, (side, side))


def _pixels(logits: torch.Tensor, size: int) -> torch.Tensor:
    """[B, 1, h, h] -> float32 [B, size, size]."""
    logits = logits.float()
    if logits.shape[-1] != size:
        logits = F.interpolate(logits, (size, size), mode="bilinear", align_corners=False)
    return logits[:, 0]
