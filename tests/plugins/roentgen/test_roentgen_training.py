"""Adaptation: what is learnt, what stays, and what becomes of accidents."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from roentgen_toys import State, toy_corpus, toy_model

from medbench.errors import CellError, DataError
from medbench.models.capabilities import Stage
from medbench_roentgen.training import rows_of
from toy_run import Killed, ToyRun

ADAPT = Stage(name="adapt", corpus="task", config={})


def parts_changed(before: State, after: State) -> set[str]:
    assert set(before) == set(after)
    return {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}


@pytest.mark.parametrize(
    ("values", "trained"),
    [
        ({}, {"unet", "text_encoder"}),
        ({"train__text_encoder": False}, {"unet"}),
        ({"train__unet": False}, {"text_encoder"}),
    ],
)
def test_training_changes_the_named_parts_and_no_bit_of_others(
    tmp_path: Path, values: dict[str, bool], trained: set[str]
) -> None:
    model = toy_model(**values)
    before = model.model.kept()
    model.fit(ADAPT, toy_corpus(), ToyRun(tmp_path))
    assert parts_changed(before, model.model.kept()) == trained
    assert {key.split(".")[0] for key in model.state("adapt")} == trained
    assert not any(p.requires_grad for p in model.model.parameters())


def test_the_loss_falls(tmp_path: Path) -> None:
    run = ToyRun(tmp_path)
    model = toy_model(train__steps=150, train__batch=8, train__lr=5e-3, train__block=50)
    model.fit(ADAPT, toy_corpus(4), run)
    assert sum(run.losses[-20:]) < 0.85 * sum(run.losses[:20])


def test_a_killed_training_ends_in_the_same_weights(tmp_path: Path) -> None:
    def trained(folder: str, *kills: int) -> State:
        for kill in kills:
            with pytest.raises(Killed):
                toy_model(train__ema=0.9).fit(
                    ADAPT, toy_corpus(), ToyRun(tmp_path / folder, kill_after=kill)
                )
        model = toy_model(train__ema=0.9)
        model.fit(ADAPT, toy_corpus(), ToyRun(tmp_path / folder))
        return model.state("adapt")

    whole, broken = trained("whole"), trained("broken", 0, 4, 1)
    assert all(torch.equal(whole[key], broken[key]) for key in whole)


def test_accumulation_and_checkpointing_change_no_result(tmp_path: Path) -> None:
    def trained(folder: str, **values: object) -> State:
        model = toy_model(**values)
        model.fit(ADAPT, toy_corpus(), ToyRun(tmp_path / folder))
        return model.state("adapt")

    whole = trained("whole")
    for name, values in (
        ("parts", {"train__accumulation": 4}),
        ("again", {"train__gradient_checkpointing": True}),
    ):
        other = trained(name, **values)
        for key, value in whole.items():
            torch.testing.assert_close(other[key], value, atol=2e-4, rtol=1e-3)


def test_every_sample_is_seen_once_in_a_pass() -> None:
    seen = torch.cat([rows_of(3, step, 4, 10) for step in range(5)])
    assert sorted(seen[:10].tolist()) == list(range(10)) == sorted(seen[10:].tolist())
    assert seen[:10].tolist() != seen[10:].tolist()


def test_a_running_mean_is_kept_where_asked_for(tmp_path: Path) -> None:
    last, mean = toy_model(), toy_model(train__ema=0.9)
    last.fit(ADAPT, toy_corpus(), ToyRun(tmp_path / "last"))
    mean.fit(ADAPT, toy_corpus(), ToyRun(tmp_path / "mean"))
    assert parts_changed(last.state("adapt"), mean.state("adapt")) == {"unet", "text_encoder"}


def test_a_loss_that_is_no_number_stops_training_and_keeps_the_last_state(
    tmp_path: Path,
) -> None:
    run = ToyRun(tmp_path)
    model = toy_model()
    true_loss, calls = model.model.noise_loss, iter(range(100))

    def loss(*arguments: object) -> torch.Tensor:
        found: torch.Tensor = true_loss(*arguments)  # type: ignore[arg-type]
        return found * float("nan") if next(calls) == 4 else found

    model.model.noise_loss = loss  # type: ignore[method-assign]
    with pytest.raises(CellError, match=r"step 5 of 6, at learning rate 0\.001.*after step 4"):
        model.fit(ADAPT, toy_corpus(), run)
    saved = torch.load(tmp_path / "adapt.pt", weights_only=True)
    assert saved["epoch"] == 2  # blocks of two steps
    for key, value in saved["parts"][0].items():
        assert torch.equal(value, model.model.unet.state_dict()[key])  # no step was made of it


def test_out_of_memory_halves_the_images_at_a_time_and_says_so(tmp_path: Path) -> None:
    run, plain = ToyRun(tmp_path / "run"), ToyRun(tmp_path / "plain")
    model, whole = toy_model(), toy_model()
    true_loss = model.model.noise_loss
    sizes: list[int] = []

    def loss(scheduler: object, latents: torch.Tensor, *rest: object) -> torch.Tensor:
        if len(latents) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(latents))
        return true_loss(scheduler, latents, *rest)  # type: ignore[arg-type]

    model.model.noise_loss = loss  # type: ignore[method-assign]
    model.fit(ADAPT, toy_corpus(), run)
    whole.fit(ADAPT, toy_corpus(), plain)
    assert set(sizes) == {2}
    said = [line for line in run.warnings if "memory" in line]
    assert said == [
        "out of memory at step 1: from here on 2 images at a time, in 2 parts of a batch of 4"
    ]
    for key, value in whole.state("adapt").items():
        torch.testing.assert_close(model.state("adapt")[key], value, atol=2e-4, rtol=1e-3)


def test_out_of_memory_with_one_image_is_an_error(tmp_path: Path) -> None:
    model = toy_model()

    def loss(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.model.noise_loss = loss  # type: ignore[method-assign]
    with pytest.raises(CellError, match=r"one image at a time.*gradient_checkpointing"):
        model.fit(ADAPT, toy_corpus(), ToyRun(tmp_path))


def test_images_without_a_report_are_left_out_and_counted(tmp_path: Path) -> None:
    run = ToyRun(tmp_path)
    toy_model().fit(ADAPT, toy_corpus(12, silent=3), run)
    assert "3 of 12 training images have no report and are left out." in run.warnings
    with pytest.raises(DataError, match="no training image with a report among 4"):
        toy_model().fit(ADAPT, toy_corpus(4, silent=4), ToyRun(tmp_path / "none"))


def test_long_training_prompts_are_counted(tmp_path: Path) -> None:
    run = ToyRun(tmp_path)
    model = toy_model(window=4)  # start, "disc", ",", end: the side is cut
    model.fit(ADAPT, toy_corpus(), run)
    assert "12 of 12 training prompts have more than 4 tokens and are cut." in run.warnings


def test_latents_are_computed_once(tmp_path: Path) -> None:
    first, second = toy_model(), toy_model()
    first.fit(ADAPT, toy_corpus(), ToyRun(tmp_path))

    def refuse(images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("encoded again")

    second.model.encode = refuse  # type: ignore[method-assign]
    (tmp_path / "adapt.pt").unlink()
    second.fit(ADAPT, toy_corpus(), ToyRun(tmp_path))
    for key, value in first.state("adapt").items():
        assert torch.equal(second.state("adapt")[key], value)


def test_latents_that_are_no_numbers_name_their_image(tmp_path: Path) -> None:
    model = toy_model()
    true_encode = model.model.encode

    def encode(images: torch.Tensor) -> torch.Tensor:
        latents = true_encode(images)
        latents[2] = float("nan")
        return latents

    model.model.encode = encode  # type: ignore[method-assign]
    with pytest.raises(CellError, match="'image-2' are not finite"):
        model.fit(ADAPT, toy_corpus(), ToyRun(tmp_path))
