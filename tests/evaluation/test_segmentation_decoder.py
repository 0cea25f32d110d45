"""The segmentation decoder that is the same for every model."""

from __future__ import annotations

import pytest
import torch

from medbench.evaluation.segmentation import (
    LOSSES,
    Decoder,
    Schedule,
    predict_masks,
    train_decoder,
)

CPU = torch.device("cpu")


def world(count: int = 96, size: int = 16) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Squares at random places, and two maps that show them coarsely and finely, with noise."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(count, size, size, dtype=torch.bool)
    for row in range(count):
        if row % 3:
            y, x = torch.randint(0, size - 6, (2,), generator=generator).tolist()
            masks[row, y : y + 6, x : x + 6] = True
    maps = []
    for side in (8, 4):
        shown = torch.nn.functional.adaptive_avg_pool2d(masks.float()[:, None], side)
        noise = torch.randn(count, 4, side, side, generator=generator)
        maps.append(torch.cat([shown, 0.3 * noise], dim=1))
    return masks, maps


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("levels", [1, 2])
def test_a_decoder_learns_where_lesions_are(loss: str, levels: int) -> None:
    masks, maps = world()
    maps = maps[-levels:]
    rows = torch.arange(96)
    train, val, test = rows[:64], rows[64:80], rows[80:]
    schedule = Schedule(epochs=20, rate=3e-3, batch=16, loss=loss)  # type: ignore[arg-type]
    decoder, losses = train_decoder(
        lambda some: [m[some] for m in maps], masks, train, val, 16, 0, CPU, schedule
    )
    assert min(losses) < 0.5 * losses[0]
    found = predict_masks(decoder, lambda some: [m[some] for m in maps], test, CPU)
    overlap = (found & masks[test]).sum() * 2 / (found.sum() + masks[test].sum())
    assert overlap > 0.7


def test_the_epoch_of_lowest_validation_loss_is_kept_and_training_stops() -> None:
    masks, maps = world(48)
    rows = torch.arange(48)
    noise = masks.clone()
    noise[32:] = torch.rand(16, 16, 16, generator=torch.Generator().manual_seed(1)) > 0.5
    schedule = Schedule(epochs=25, rate=3e-3, batch=16, patience=3)
    decoder, losses = train_decoder(
        lambda some: [m[some] for m in maps], noise, rows[:32], rows[32:], 16, 0, CPU, schedule
    )
    best = losses.index(min(losses))
    assert len(losses) == best + 4 < 25
    again, fewer = train_decoder(
        lambda some: [m[some] for m in maps], noise, rows[:32], rows[32:], 16, 0, CPU,
        Schedule(epochs=best + 1, rate=3e-3, batch=16, patience=3),
    )  # fmt: skip
    assert fewer == losses[: best + 1]
    for name, value in decoder.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


@pytest.mark.parametrize(("sizes", "size"), [((7,), 64), ((14, 7), 50), ((32, 16, 8, 4), 64)])
def test_logits_have_the_masks_size_whatever_the_maps_have(
    sizes: tuple[int, ...], size: int
) -> None:
    decoder = Decoder([5] * len(sizes), sizes, size)
    maps = [torch.randn(2, 5, side, side) for side in sizes]
    assert decoder(maps).shape == (2, size, size)
    if len(sizes) > 1:
        changed = [maps[0] + 1, *maps[1:]]
        assert not torch.equal(decoder(maps), decoder(changed)), "the finest map is used"
