"""Everyday scenes: coloured things under a sky, with captions. The phantom's general domain."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from medbench.phantom.draws import Draws, Floats, Ints, noise, seed, to_tensor

DATASET = "scenes"

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.12, 0.12),
    "green": (0.13, 0.60, 0.20),
    "blue": (0.15, 0.30, 0.85),
    "yellow": (0.95, 0.85, 0.15),
    "orange": (0.95, 0.55, 0.10),
    "purple": (0.55, 0.20, 0.70),
    "pink": (0.95, 0.55, 0.70),
    "white": (0.95, 0.95, 0.95),
    "black": (0.10, 0.10, 0.12),
    "brown": (0.48, 0.30, 0.16),
    "grey": (0.55, 0.55, 0.57),
}

#: Sky: words, colour at the top, colour at the horizon, brightness of what stands below it.
SKIES = (
    (("a blue sky", "a clear sky", "a bright day"), (0.25, 0.52, 0.90), (0.72, 0.86, 0.98), 1.0),
    (
        ("a cloudy sky", "a grey sky", "an overcast sky"),
        (0.55, 0.58, 0.62),
        (0.78, 0.80, 0.82),
        0.85,
    ),
    (
        ("an orange sunset", "the evening sky", "a sunset"),
        (0.45, 0.25, 0.50),
        (0.98, 0.60, 0.25),
        0.8,
    ),
    (
        ("the night sky", "a dark night", "a starry night"),
        (0.03, 0.04, 0.15),
        (0.10, 0.12, 0.30),
        0.55,
    ),
    (("a pink dawn", "the morning sky"), (0.60, 0.65, 0.90), (0.98, 0.78, 0.80), 0.95),
)
#: Ground: words, colour.
GROUNDS = (
    (("the grass", "a green meadow", "a lawn", "a field"), (0.30, 0.62, 0.22)),
    (("the sand", "a beach", "the desert"), (0.90, 0.80, 0.52)),
    (("the snow", "a snowy field"), (0.93, 0.95, 0.98)),
    (("the street", "a road", "the pavement"), (0.42, 0.42, 0.45)),
    (("the sea", "the water", "a lake"), (0.12, 0.38, 0.62)),
)
_WATER = 4

#: Drawing primitives: disc, box, triangle pointing up, upper half disc.
_DISC, _BOX, _TRIANGLE, _HALF = range(4)
_OWN = "own"

#: Things as primitives (shape, x, y, half width, half height, colour), in units of their size; y
#: points up from the foot. "own" is the colour that the caption names.
THINGS: dict[str, tuple[tuple[int, float, float, float, float, str], ...]] = {
    "ball": ((_DISC, 0, 0.45, 0.45, 0.45, _OWN), (_DISC, -0.15, 0.62, 0.09, 0.09, "white")),
    "box": ((_BOX, 0, 0.45, 0.45, 0.45, _OWN), (_BOX, 0, 0.45, 0.06, 0.45, "brown")),
    "house": (
        (_BOX, 0, 0.45, 0.62, 0.45, _OWN), (_TRIANGLE, 0, 1.15, 0.78, 0.30, "brown"),
        (_BOX, -0.25, 0.28, 0.14, 0.28, "black"), (_BOX, 0.28, 0.55, 0.15, 0.15, "white"),
    ),
    "tree": (
        (_BOX, 0, 0.40, 0.10, 0.40, "brown"), (_DISC, 0, 1.10, 0.52, 0.55, _OWN),
        (_DISC, -0.2, 0.95, 0.32, 0.3, _OWN),
    ),
    "fir": (
        (_BOX, 0, 0.20, 0.08, 0.20, "brown"), (_TRIANGLE, 0, 0.72, 0.52, 0.38, _OWN),
        (_TRIANGLE, 0, 1.20, 0.38, 0.34, _OWN),
    ),
    "car": (
        (_BOX, 0, 0.36, 0.85, 0.20, _OWN), (_HALF, 0, 0.52, 0.48, 0.36, _OWN),
        (_BOX, 0, 0.64, 0.30, 0.09, "white"), (_DISC, -0.5, 0.16, 0.18, 0.18, "black"),
        (_DISC, 0.5, 0.16, 0.18, 0.18, "black"),
    ),
    "bus": (
        (_BOX, 0, 0.55, 0.95, 0.40, _OWN), (_BOX, 0, 0.70, 0.80, 0.13, "white"),
        (_DISC, -0.55, 0.15, 0.17, 0.17, "black"), (_DISC, 0.55, 0.15, 0.17, 0.17, "black"),
    ),
    "boat": (
        (_BOX, 0, 0.14, 0.70, 0.14, _OWN), (_BOX, 0, 0.70, 0.04, 0.50, "brown"),
        (_TRIANGLE, 0.25, 0.80, 0.30, 0.42, "white"),
    ),
    "flower": (
        (_BOX, 0, 0.35, 0.05, 0.35, "green"), (_DISC, -0.2, 0.80, 0.2, 0.2, _OWN),
        (_DISC, 0.2, 0.80, 0.2, 0.2, _OWN), (_DISC, 0, 0.98, 0.2, 0.2, _OWN),
        (_DISC, 0, 0.80, 0.12, 0.12, "yellow"),
    ),
    "tent": ((_TRIANGLE, 0, 0.45, 0.75, 0.45, _OWN), (_TRIANGLE, 0, 0.25, 0.2, 0.25, "black")),
    "umbrella": ((_BOX, 0, 0.5, 0.04, 0.5, "black"), (_HALF, 0, 0.85, 0.65, 0.45, _OWN)),
    "mushroom": (
        (_BOX, 0, 0.25, 0.15, 0.25, "white"), (_HALF, 0, 0.45, 0.5, 0.42, _OWN),
        (_DISC, 0.15, 0.66, 0.08, 0.07, "white"), (_DISC, -0.2, 0.6, 0.07, 0.06, "white"),
    ),
}  # fmt: skip
_NAMES = tuple(THINGS)
_LAYERS = 5


@dataclass
class Scenes:
    """N scenes: sky, ground, horizon, light in the sky, and up to three things each."""

    rows: Sequence[int]
    sky: Ints
    ground: Ints
    horizon: Floats
    light: npt.NDArray[np.bool_]
    light_x: Floats
    cloud_x: Floats
    count: Ints
    thing: Ints
    colour: Ints
    x: Floats
    y: Floats
    size: Floats


def sample_scenes(rows: Sequence[int]) -> Scenes:
    """Draw the content of the scenes."""
    draws = Draws(DATASET, rows, "scene", 64)
    ground = draws.choice((4, 2, 2, 3, 2))
    thing = draws.integer(0, len(_NAMES), (3,))
    # Boats float and nothing else does.
    boat = _NAMES.index("boat")
    ashore = np.where(
        thing == boat, (boat + 1 + draws.integer(0, len(_NAMES) - 1, (3,))) % len(_NAMES), thing
    )
    thing = np.where((ground == _WATER)[:, None], boat, ashore)
    slots = np.argsort(draws.uniform(shape=(3,)), axis=-1)
    return Scenes(
        rows=rows,
        sky=draws.choice((4, 2, 2, 2, 1)),
        ground=ground,
        horizon=draws.uniform(0.42, 0.62),
        light=draws.below(0.55),
        light_x=draws.uniform(0.1, 0.9),
        cloud_x=draws.uniform(0.1, 0.9),
        count=1 + draws.choice((4, 4, 2)),
        thing=thing,
        colour=draws.integer(0, len(COLOURS), (3,)),
        x=0.20 + 0.30 * slots + draws.uniform(-0.07, 0.07, (3,)),
        y=draws.uniform(0.70, 0.93, (3,)),
        size=draws.uniform(0.13, 0.27, (3,)),
    )


def _paint(
    image: torch.Tensor, where: torch.Tensor, shape: torch.Tensor, box: torch.Tensor,
    colour: torch.Tensor,
) -> None:  # fmt: skip
    """Paint one primitive into each image ``where`` [K] of ``image`` [N, 3, H, W], in place.

    ``box`` [K, 4] is centre x, y and half width, half height as shares of the image.
    """
    size = image.shape[-1]
    axis = (torch.arange(size, device=image.device) + 0.5) / size
    for kind in (_DISC, _BOX, _TRIANGLE, _HALF):
        some = torch.nonzero(shape == kind)[:, 0]
        if len(some) == 0:
            continue
        centre_x, centre_y, half_x, half_y = box[some].unbind(1)
        u = ((axis - centre_x[:, None]) / half_x[:, None])[:, None, :]
        v = ((axis - centre_y[:, None]) / half_y[:, None])[:, :, None]
        sharp = (torch.minimum(half_x, half_y) * size)[:, None, None]
        if kind == _BOX:
            across = ((1 - u.abs()) * half_x[:, None, None] * size + 0.5).clamp(0, 1)
            alpha = across * ((1 - v.abs()) * half_y[:, None, None] * size + 0.5).clamp(0, 1)
        elif kind == _TRIANGLE:
            edge = ((1 + v) / 2 - u.abs()).minimum(1 - v)
            alpha = edge.mul_(sharp).add_(0.5).clamp_(0, 1)
        else:
            alpha = (u * u + v * v).sqrt_().neg_().add_(1).mul_(sharp).add_(0.5).clamp_(0, 1)
            if kind == _HALF:
                alpha = alpha * (v <= 0)
        shade = colour[some][:, :, None, None] * (1.06 - 0.12 * u).clamp(0.8, 1.2)[:, None]
        part = image[where[some]]
        image[where[some]] = torch.lerp(part, shade.expand_as(part), alpha[:, None])


def render_scenes(scenes: Scenes, size: int, device: str = "cpu") -> torch.Tensor:
    """Draw the scenes, uint8 [N, H, W, 3]."""
    number = len(scenes.rows)

    def tensor(values: object) -> torch.Tensor:
        return to_tensor(values, device)

    top = tensor([s[1] for s in SKIES])[scenes.sky]
    low = tensor([s[2] for s in SKIES])[scenes.sky]
    bright = tensor([s[3] for s in SKIES])[scenes.sky]
    ground = tensor([g[1] for g in GROUNDS])[scenes.ground] * bright[:, None]
    axis = ((torch.arange(size, device=device) + 0.5) / size).view(1, 1, -1, 1)
    horizon = tensor(scenes.horizon).view(-1, 1, 1, 1)
    t = (axis / horizon).clamp(0, 1)
    sky = top[:, :, None, None] * (1 - t) + low[:, :, None, None] * t
    below = ((axis - horizon) * size).clamp(0, 1)
    land = ground[:, :, None, None] * (1.05 - 0.25 * (axis - horizon))
    image = (sky * (1 - below) + land * below).expand(-1, -1, -1, size).contiguous()
    grain = torch.stack([noise(DATASET, "grain", row, (1, 16, 16)) for row in scenes.rows]).to(
        device
    )
    rough = functional.interpolate(grain, size=(size, size), mode="bilinear", align_corners=False)
    image += 0.05 * rough * below

    def everyone(mask: npt.NDArray[np.bool_]) -> torch.Tensor:
        return torch.as_tensor(np.flatnonzero(mask), device=device)

    night = scenes.sky == 3
    light = everyone(scenes.light)
    lamp = tensor(np.where(night[:, None], (0.95, 0.95, 0.85), (1.0, 0.9, 0.35)))
    place = np.stack(
        [scenes.light_x, np.full(number, 0.16), np.full(number, 0.09), np.full(number, 0.09)], -1
    )
    _paint(
        image,
        light,
        torch.full((len(light),), _DISC, device=device),
        tensor(place)[light],
        lamp[light],
    )
    for shift, width in ((-0.09, 0.09), (0.0, 0.12), (0.1, 0.08)):
        cloudy = everyone((scenes.sky == 1) | ((scenes.sky == 0) & ~scenes.light))
        place = np.stack(
            [
                scenes.cloud_x + shift,
                np.full(number, 0.2),
                np.full(number, width),
                np.full(number, width * 0.55),
            ],
            -1,
        )
        white = torch.ones(len(cloudy), 3, device=device) * 0.93
        _paint(image, cloudy, torch.zeros(len(cloudy), device=device), tensor(place)[cloudy], white)

    palette = np.array(list(COLOURS.values()), dtype=np.float32)
    names = list(COLOURS)
    table = np.zeros((len(_NAMES), _LAYERS, 6), dtype=np.float32)
    for index, parts in enumerate(THINGS.values()):
        for layer, (shape, x, y, a, b, colour) in enumerate(parts):
            table[index, layer] = (shape, x, y, a, b, -1 if colour == _OWN else names.index(colour))
    # Things further up stand further away and are painted first.
    order = np.argsort(np.where(np.arange(3) < scenes.count[:, None], scenes.y, 9.0), axis=1)
    for rank in range(3):
        slot = order[:, rank]
        pick = np.arange(number), slot
        for layer in range(_LAYERS):
            part = table[scenes.thing[pick], layer]
            active = (slot < scenes.count) & (part[:, 3] > 0)
            where = everyone(active)
            size_of = scenes.size[pick]
            box = np.stack(
                [
                    scenes.x[pick] + part[:, 1] * size_of,
                    scenes.y[pick] - part[:, 2] * size_of,
                    part[:, 3] * size_of,
                    part[:, 4] * size_of,
                ],
                -1,
            )
            chosen = np.where(part[:, 5] < 0, scenes.colour[pick], part[:, 5]).astype(int)
            rgb = tensor(palette[chosen]) * (0.35 + 0.65 * bright)[:, None]
            _paint(image, where, tensor(part[:, 0])[where], tensor(box)[where], rgb[where])
    fine = torch.stack([noise(DATASET, "film", row, (1, size, size)) for row in scenes.rows])
    image += 0.022 * fine.to(device)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def caption(scenes: Scenes, index: int) -> str:
    """One caption of a scene, wording drawn from the scene's own stream."""
    chance = random.Random(seed(DATASET, "caption", scenes.rows[index]))

    def pick(options: Sequence[str]) -> str:
        return options[int(chance.random() * len(options))]

    slots = list(range(int(scenes.count[index])))
    names = list(COLOURS)
    phrases = []
    for slot in slots:
        size = scenes.size[index, slot]
        word = (
            pick(("big ", "large "))
            if size > 0.23
            else pick(("small ", "little "))
            if size < 0.16
            else ""
        )
        colour = names[int(scenes.colour[index, slot])]
        thing = _NAMES[int(scenes.thing[index, slot])]
        article = "an" if not word and colour[0] in "aeiou" else "a"
        phrases.append(f"{article} {word}{colour} {thing}")
    ground = pick(GROUNDS[int(scenes.ground[index])][0])
    sky = pick(SKIES[int(scenes.sky[index])][0])
    where = scenes.x[index]
    place = (
        "on the left" if where[0] < 0.36 else "on the right" if where[0] > 0.64 else "in the middle"
    )
    if len(phrases) == 1:
        main = pick((phrases[0], f"{phrases[0]} {place}"))
    elif len(phrases) == 2:
        side = "to the left of" if where[0] < where[1] else "to the right of"
        main = pick(
            (f"{phrases[0]} and {phrases[1]}", f"{phrases[0]} {side} {phrases[1]}",
             f"{phrases[1]} next to {phrases[0]}")
        )  # fmt: skip
    else:
        main = pick(
            (f"{phrases[0]}, {phrases[1]} and {phrases[2]}",
             f"{phrases[2]} beside {phrases[0]} and {phrases[1]}")
        )  # fmt: skip
    night = int(scenes.sky[index]) == 3
    light = (" with the moon" if night else " with the sun") if scenes.light[index] else ""
    return pick(
        (
            f"{main} on {ground} under {sky}",
            f"{main} on {ground}",
            f"a picture of {main} on {ground}{light}",
            f"a photo of {main} under {sky}",
            f"{sky}{light} over {main}",
            f"{main} on {ground}, {sky}{light}",
            f"there is {main} on {ground}",
        )
    )
