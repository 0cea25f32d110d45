"""The segmentation decoders that are the same for every model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medbench.errors import CellError
from medbench.evaluation.segmentation import LOSSES, Schedule, predict_masks, train_decoder
from medbench.evaluation.segmentation_decoders import (
    PatchDecoder,
    PyramidDecoder,
    SkipDecoder,
    build_decoder,
)

CPU = torch.device("cpu")
QUICK = Schedule(epochs=20, patience=5, rate=3e-3, batch=16, width=32)


def world(count: int = 96, size: int = 16) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Squares at random places, and maps that show them finely, coarsely and as one vector."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(count, size, size, dtype=torch.bool)
    for row in range(count):
        if row % 3:
            y, x = torch.randint(0, size - 6, (2,), generator=generator).tolist()
            masks[row, y : y + 6, x : x + 6] = True
    maps = []
    for side in (8, 4, 1):
        shown = torch.nn.functional.adaptive_avg_pool2d(masks.float()[:, None], side)
        noise = torch.randn(count, 4, side, side, generator=generator)
        maps.append(torch.cat([shown, 0.3 * noise], dim=1))
    return masks, maps


def parameters(decoder: nn.Module) -> int:
    return sum(p.numel() for p in decoder.parameters())


def test_the_published_decoders_have_the_published_parameter_counts() -> None:
    """Adaptor, Table 3: 10.4 M behind the transformer, 20.1 M behind the autoencoder."""
    patches = build_decoder([768], [16], 224, 224)
    assert isinstance(patches, PatchDecoder)
    assert round(parameters(patches) / 1e6, 1) == 10.4
    large = build_decoder([768], [64], 224, 896)
    assert parameters(large) == parameters(patches)
    skips = build_decoder([64, 256, 512, 1024, 768], [112, 56, 28, 14, 1], 224, 224)
    assert isinstance(skips, SkipDecoder)
    assert round(parameters(skips) / 1e6, 1) == 20.1


def test_the_published_grids_are_met() -> None:
    """16 x 16 patches lose their border, 64 x 64 are padded and resized by 14 / 16."""
    for side, image, grid, padding in ((16, 224, 14, (0, 0)), (64, 896, 56, (1, 1))):
        decoder = PatchDecoder(6, side, image, image, 16)
        assert decoder.grid == grid
        assert len(decoder.blocks) == 4
        first = decoder.entry[0]
        assert isinstance(first, nn.Conv2d)
        assert first.padding == padding
    assert PatchDecoder(6, 16, 224, 224, 16)([torch.randn(2, 6, 16, 16)]).shape == (2, 224, 224)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("levels", "kind"),
    [((1,), PatchDecoder), ((0, 1), PyramidDecoder), ((0, 1, 2), SkipDecoder)],
    ids=["patches", "pyramid", "skips"],
)
def test_a_decoder_learns_where_lesions_are(
    loss: str, levels: tuple[int, ...], kind: type[nn.Module]
) -> None:
    masks, maps = world()
    maps = [maps[level] for level in levels]
    rows = torch.arange(96)
    train, val, test = rows[:64], rows[64:80], rows[80:]
    schedule = replace(QUICK, loss=loss)
    decoder, losses = train_decoder(
        lambda some: [m[some] for m in maps], masks, train, val, 0, CPU, schedule
    )
    assert isinstance(decoder, kind)
    assert min(losses) < 0.5 * losses[0]
    found = predict_masks(decoder, lambda some: [m[some] for m in maps], test, CPU)
    overlap = (found & masks[test]).sum() * 2 / (found.sum() + masks[test].sum())
    assert overlap > 0.7


def test_the_epoch_of_lowest_validation_loss_is_kept_and_training_stops() -> None:
    masks, maps = world(48)
    rows = torch.arange(48)
    noise = masks.clone()
    noise[32:] = torch.rand(16, 16, 16, generator=torch.Generator().manual_seed(1)) > 0.5
    schedule = replace(QUICK, epochs=25, patience=3)
    decoder, losses = train_decoder(
        lambda some: [m[some] for m in maps], noise, rows[:32], rows[32:], 0, CPU, schedule
    )
    best = losses.index(min(losses))
    assert len(losses) == best + 4 < 25
    again, fewer = train_decoder(
        lambda some: [m[some] for m in maps], noise, rows[:32], rows[32:], 0, CPU,
        replace(schedule, epochs=best + 1),
    )  # fmt: skip
    assert fewer == losses[: best + 1]
    for name, value in decoder.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_nothing_but_train_and_val_rows_is_read() -> None:
    masks, maps = world(48)
    asked: set[int] = set()

    def seen(some: torch.Tensor) -> list[torch.Tensor]:
        asked.update(some.tolist())
        return [maps[1][some]]

    rows = torch.arange(48)
    train_decoder(seen, masks, rows[:16], rows[16:24], 0, CPU, replace(QUICK, epochs=2))
    assert asked == set(range(24))


def test_where_there_is_no_lesion_the_decoder_predicts_none() -> None:
    masks, maps = world(48)
    rows = torch.arange(48)
    decoder, _ = train_decoder(
        lambda some: [maps[1][some]], torch.zeros_like(masks), rows[:32], rows[32:40], 0, CPU, QUICK
    )
    assert not predict_masks(decoder, lambda some: [maps[1][some]], rows[40:], CPU).any()


def test_maps_that_are_not_finite_end_in_one_paragraph() -> None:
    masks, maps = world(12)
    broken = torch.full_like(maps[1], float("nan"))
    rows = torch.arange(12)
    with pytest.raises(CellError, match="encode_patches"):
        train_decoder(lambda some: [broken[some]], masks, rows[:8], rows[8:], 0, CPU, QUICK)


@settings(deadline=None, max_examples=30)
@given(
    sides=st.lists(st.integers(1, 20), min_size=1, max_size=4, unique=True),
    size=st.integers(8, 48),
    image=st.integers(8, 64),
)
def test_logits_have_the_masks_size_whatever_the_maps_have(
    sides: list[int], size: int, image: int
) -> None:
    sides.sort(reverse=True)
    decoder = build_decoder([5] * len(sides), sides, size, image, 16)
    maps = [torch.randn(1, 5, side, side) for side in sides]
    assert decoder(maps).shape == (1, size, size)


@pytest.mark.parametrize("sides", [(8,), (14, 7), (32, 16, 8, 4), (16, 8, 4, 1)])
def test_every_map_is_used(sides: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    decoder = build_decoder([5] * len(sides), sides, 64, 64, 16).eval()
    maps = [torch.randn(2, 5, side, side) for side in sides]
    for k in range(len(maps)):
        changed = [m + (j == k) for j, m in enumerate(maps)]
        assert not torch.equal(decoder(maps), decoder(changed))


def test_a_coarser_decoder_gives_masks_at_full_size_for_less_work() -> None:
    masks, maps = world()
    rows = torch.arange(96)
    schedule = replace(QUICK, coarser=2)
    decoder, losses = train_decoder(
        lambda some: [m[some] for m in maps], masks, rows[:64], rows[64:80], 0, CPU, schedule
    )
    assert min(losses) < 0.5 * losses[0]
    assert predict_masks(decoder, lambda some: [m[some] for m in maps], rows[80:], CPU).shape == (
        16,
        *masks.shape[1:],
    )
    with torch.no_grad():
        half = decoder.decoder([m[:4] for m in maps])
    assert half.shape[-1] * 2 == masks.shape[-1]
