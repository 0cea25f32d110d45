"""Drawing: an image depends on its prompt and its seed, and on nothing else."""

from __future__ import annotations

import logging

import pytest
import torch
from roentgen_toys import toy_model

from medbench.errors import DataError
from medbench.models.capabilities import GeneratesImages

PROMPTS = ["Disc, upper.", "Disc, left.", "No disc."]


def test_images_are_within_the_contract() -> None:
    model = toy_model()
    images = model.generate_images(PROMPTS, [1, 2, 3])
    assert isinstance(model, GeneratesImages)
    assert images.shape == (3, 3, 32, 32)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert model.generate_images([], []).shape == (0, 3, 32, 32)


def test_a_prompt_and_a_seed_fix_an_image_whatever_the_batch() -> None:
    model = toy_model()
    together = model.generate_images(PROMPTS, [7, 8, 9])
    assert torch.equal(together, model.generate_images(PROMPTS, [7, 8, 9]))
    for i in (0, 2):
        alone = model.generate_images(PROMPTS[i : i + 1], [7 + i])
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)
    in_twos = toy_model(sampling__batch=2).generate_images(PROMPTS, [7, 8, 9])
    torch.testing.assert_close(in_twos, together, atol=1e-5, rtol=0)


def test_another_seed_or_prompt_gives_another_image() -> None:
    same, seed, prompt = toy_model().generate_images(["Disc."] * 2 + ["Left."], [1, 2, 1])
    assert not torch.allclose(same, seed, atol=1e-3)
    assert not torch.allclose(same, prompt, atol=1e-6)


def test_guidance_of_one_is_the_conditional_prediction_alone() -> None:
    model = toy_model(sampling__guidance=1.0)
    asked: list[int] = []
    true_predict = model.model.predict

    def predict(noisy: torch.Tensor, *rest: object) -> torch.Tensor:
        asked.append(len(noisy))
        return true_predict(noisy, *rest)  # type: ignore[arg-type]

    model.model.predict = predict  # type: ignore[method-assign]
    drawn = model.generate_images(["Disc."], [4])
    assert set(asked) == {1}  # nothing is asked without the prompt
    # empty + 1 (given - empty), through the path that asks for both, is the same
    near = toy_model(sampling__guidance=1.0 + 1e-7).generate_images(["Disc."], [4])
    torch.testing.assert_close(drawn, near, atol=1e-4, rtol=0)


def test_without_prompts_the_text_decides_nothing_and_may_be_empty() -> None:
    model = toy_model(sampling__prompted=False)
    one, other = model.generate_images(["Disc.", ""], [5, 5])
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_an_empty_prompt_is_refused_with_its_index() -> None:
    with pytest.raises(DataError, match="Prompt 1 of 2 is empty"):
        toy_model().generate_images(["Disc.", " \n"], [1, 2])


def test_long_prompts_are_cut_at_the_window_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = toy_model(window=6)  # four words between start and end
    with caplog.at_level(logging.WARNING, "medbench"):
        long, cut, short = model.generate_images(
            ["disc on the left side", "disc on the left", "disc"], [3, 3, 3]
        )
        model.generate_images(["disc on the left side"], [4])
    assert "1 of 3 prompts have more than 6 tokens and are cut" in caplog.text
    assert len(caplog.records) == 1
    assert model.notes == ["2 times a prompt of more than 6 tokens was cut in drawing"]
    torch.testing.assert_close(long, cut, atol=1e-6, rtol=0)
    assert not torch.allclose(cut, short, atol=1e-6)


def test_strips_end_in_the_image_and_begin_with_less() -> None:
    model = toy_model()
    strips = model.explain_images(PROMPTS, [1, 2, 3], 3)
    assert strips.shape == (3, 3, 3, 32, 32)
    assert strips.min() >= 0
    assert strips.max() <= 1
    torch.testing.assert_close(
        strips[:, -1], model.generate_images(PROMPTS, [1, 2, 3]), atol=1e-5, rtol=0
    )
    assert not torch.allclose(strips[:, 0], strips[:, -1], atol=1e-3)


def test_texts_are_unit_vectors_that_do_not_depend_on_their_batch() -> None:
    model = toy_model()
    found = model.encode_texts(PROMPTS)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(found[1:2], model.encode_texts(PROMPTS[1:2]), atol=1e-6, rtol=1e-5)
    assert model.encode_texts([]).shape == (0, 16)
