"""The Adaptor module: its roles leak no pair; its counts and its loss are the paper's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medbench.models.contrastive import seeded
from medbench_adaptor.adaptor import Adaptor, CrossLayer, pair_loss
from medbench_adaptor.config import AdaptorConfig


def module(dropout: float = 0.1, seed: int = 0) -> Adaptor:
    with seeded(seed):
        return Adaptor(24, 20, 16, layers=2, heads=4, hidden=32, dropout=dropout)


class Swapped(CrossLayer):
    """The other choice of roles: query and residual one's own, key and value the other's."""

    def forward(self, own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        attended, _ = self.attention(query=own, key=other, value=other, need_weights=False)
        x = self.attention_norm(own + self.dropout(attended))
        inner = self.contract(self.dropout(torch.relu(self.expand(x))))
        out: torch.Tensor = self.output_norm(x + self.dropout(inner))
        return out


def swapped() -> Adaptor:
    found = module(dropout=0.0)
    with seeded(0):
        found.layers = torch.nn.ModuleList(Swapped(16, 4, 32, 0.0) for _ in range(2))
    return found


@torch.no_grad()
def test_an_images_output_is_the_same_whatever_text_it_is_paired_with() -> None:
    adaptor = module().eval()
    images, texts, others = torch.randn(6, 24), torch.randn(6, 20), 9 * torch.randn(6, 20)
    image, text = adaptor(images, texts)
    assert torch.equal(image, adaptor(images, others)[0])
    assert torch.equal(text, adaptor(torch.randn(6, 24), texts)[1])
    assert not torch.equal(text, adaptor(images, others)[1])
    assert image.shape == text.shape == (6, 16)


@torch.no_grad()
def test_swapped_roles_would_let_the_text_through() -> None:
    adaptor = swapped().eval()
    images, texts, others = torch.randn(6, 24), torch.randn(6, 20), torch.randn(6, 20)
    assert not torch.allclose(adaptor(images, texts)[0], adaptor(images, others)[0], atol=1e-2)


@pytest.mark.parametrize("leaks", [False, True])
def test_unrelated_pairs_can_be_told_with_swapped_roles_alone(leaks: bool) -> None:
    """Images and texts are drawn apart and never seen twice: nothing can be learnt about them. Only
    a module that copies the pair into itself can lower the loss of a new batch."""
    adaptor = swapped() if leaks else module(dropout=0.0)
    optimiser = torch.optim.AdamW(adaptor.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(120):
        images = torch.randn(32, 24, generator=generator)
        texts = torch.randn(32, 20, generator=generator)
        loss = pair_loss(*adaptor(images, texts), adaptor.logit_scale.exp(), 0.75)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    ended, chance = float(np.mean(losses[-20:])), float(np.log(32))
    if leaks:
        assert ended < 0.5 * chance
    else:
        assert ended > 0.99 * chance


@torch.no_grad()
def test_a_modality_alone_gives_what_the_pair_gives() -> None:
    adaptor = module().eval()
    images, texts = torch.randn(5, 24), torch.randn(5, 20)
    image, text = adaptor(images, texts)
    torch.testing.assert_close(adaptor.encode_images(images), image, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(adaptor.encode_texts(texts), text, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_scale_of_a_frozen_vector_does_not_matter() -> None:
    adaptor = module().eval()
    images = torch.randn(5, 24)
    once, larger = adaptor.encode_images(images), adaptor.encode_images(40 * images)
    torch.testing.assert_close(once, larger, atol=1e-5, rtol=1e-5)


def test_both_modalities_share_the_layers() -> None:
    adaptor = module()
    names = {name for name, _ in adaptor.named_parameters() if name.startswith("layers.")}
    assert {name.split(".")[1] for name in names} == {"0", "1"}
    image, text = adaptor(torch.randn(4, 24), torch.randn(4, 20))
    image.sum().backward(retain_graph=True)
    grad = adaptor.layers[0].expand.weight.grad
    assert grad is not None
    of_image = grad.clone()
    (text * torch.randn(16)).sum().backward()
    assert not torch.equal(adaptor.layers[0].expand.weight.grad, of_image)


@pytest.mark.parametrize(
    ("vision_dim", "millions"), [(768, 12.21), (384, 11.91), (512, 12.01)],
    ids=["dinov2-b", "dinov2-s", "resnet-ae"],
)  # fmt: skip
def test_published_numbers_of_trainable_parameters(vision_dim: int, millions: float) -> None:
    paper = AdaptorConfig()
    with torch.device("meta"):
        adaptor = Adaptor(
            vision_dim, 768, paper.dim, layers=paper.layers, heads=paper.heads,
            hidden=paper.hidden, dropout=paper.dropout,
        )  # fmt: skip
    number = sum(p.numel() for p in adaptor.parameters())
    attention, inner, norms = 4 * 768 * 769, 2 * 768 * 2048 + 768 + 2048, 4 * 768
    assert number == (vision_dim + 768) * 768 + 2 * (attention + inner + norms) + 1
    assert round(number / 1e6, 2) == millions


def test_the_temperature_starts_at_seven_hundredths_and_is_learnt() -> None:
    adaptor = module()
    assert 1 / float(adaptor.logit_scale.detach().exp()) == pytest.approx(0.07)
    assert float(adaptor.logit_scale.detach()) == pytest.approx(2.6592, abs=1e-4)
    pair_loss(*adaptor(torch.randn(4, 24), torch.randn(4, 20)), adaptor.logit_scale.exp(), 0.75
              ).backward()  # fmt: skip
    assert adaptor.logit_scale.grad is not None
    assert float(adaptor.logit_scale.grad) != 0


def independent_loss(
    images: npt.NDArray[np.float64], texts: npt.NDArray[np.float64], scale: float, alpha: float
) -> float:
    """Equations 2 to 4, term by term."""
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (images, texts)]
    number, total = len(images), 0.0
    for k in range(number):
        match = np.exp(scale * unit[0][k] @ unit[1][k])
        over_texts = sum(np.exp(scale * unit[0][k] @ unit[1][j]) for j in range(number))
        over_images = sum(np.exp(scale * unit[0][j] @ unit[1][k]) for j in range(number))
        total -= alpha * np.log(match / over_texts) + (1 - alpha) * np.log(match / over_images)
    return total / number


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.floats(1, 50), st.floats(0, 1), st.integers(0, 10**6))
def test_the_loss_is_the_papers(number: int, scale: float, alpha: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, texts = rng.normal(size=(number, 5)), rng.normal(size=(number, 5))
    found = pair_loss(torch.from_numpy(images), torch.from_numpy(texts), scale, alpha)
    wanted = independent_loss(images, texts, scale, alpha)
    assert float(found) == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_the_weight_is_that_of_images_to_texts() -> None:
    images = torch.tensor([[1.0, 0], [1, 0], [1, 0]])  # no image says which text is its own
    texts = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    to_text, to_image = pair_loss(images, texts, 1, 1), pair_loss(images, texts, 1, 0)
    assert float(to_image) == pytest.approx(float(np.log(3)))
    assert float(to_text) > float(to_image)
    mixed = pair_loss(images, texts, 1, 0.75)
    assert float(mixed) == pytest.approx(0.75 * float(to_text) + 0.25 * float(to_image))
