"""Training: what it takes of a corpus, what it learns, what it leaves alone, and a kill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from unicrossadapter_toys import (
    ToyReader,
    fitted,
    make,
    report,
    toy_config,
    toy_corpus,
    toy_samples,
)

from medbench.data.images import load, to_tensor
from medbench.data.samples import Sample
from medbench.errors import CellError, DataError
from medbench.models.contrastive import seeded
from medbench_unicrossadapter.augment import crop_and_flip
from medbench_unicrossadapter.network import ReportNetwork
from medbench_unicrossadapter.studies import studies_of
from medbench_unicrossadapter.training import Reports, learning_rate, report_loss
from medbench_unicrossadapter.vocabulary import Vocabulary
from toy_run import Killed, ToyRun

State = dict[str, torch.Tensor]


def pictures(numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Both views of toy studies, as the harness gives them."""
    reader = ToyReader()
    views = [
        to_tensor(load(reader, Sample(id=f"{n}-{v}", patient=None, files=()), 32))
        for n in numbers
        for v in range(2)
    ]
    return torch.stack(views).unflatten(0, (len(numbers), 2)), torch.ones(
        len(numbers), 2, dtype=torch.bool
    )


def same(one: State, two: State) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


# --- what it learns ---------------------------------------------------------------------------


def test_it_learns_to_write_what_the_images_show(tmp_path: Path) -> None:
    model, run = fitted(
        tmp_path,
        corpus=toy_corpus(toy_samples(48)),
        epochs=12,
        batch=12,
        lr=5e-3,
        train_size=32,
        statistics_studies=12,
        dropout=0.0,
        adapter_dropout=0.0,
    )
    assert run.losses[-1] < 0.2 * run.losses[0]
    images, mask = pictures(range(100, 108))
    written = model.generate_reports(images, mask)
    assert written == [report(number).lower() for number in range(100, 108)]


def test_clip_is_neither_trained_nor_made_anew(tmp_path: Path) -> None:
    model = make()
    with seeded(7), torch.no_grad():  # as if loaded: every value unlike a fresh one
        for tensor in model.network.clip.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor + 0.1 * torch.rand_like(tensor))
    before = {k: v.clone() for k, v in model.network.clip.state_dict().items()}
    model.fit(model.stages(None)[1], toy_corpus(), ToyRun(tmp_path))
    after = model.network.clip.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    # official code: all is frozen but the learnt positions
    assert changed == {"positional_embedding", "visual.attnpool.positional_embedding"}
    assert any(p.abs().max() > 0 for p in model.network.image_sites[0].up.parameters())
    assert any(p.abs().max() > 0 for p in model.network.text_sites[2].up.parameters())


def test_the_epoch_of_least_validation_loss_is_kept(tmp_path: Path) -> None:
    model, run = fitted(tmp_path, epochs=4, lr=0.05)  # too fast: it does not get better for ever
    saved = torch.load(tmp_path / "reports.pt", weights_only=True)["parts"][2]
    losses = saved["losses"]
    assert len(losses) == 4
    best = losses.index(min(losses))
    assert any(f"epoch {best + 1} of 4 is kept" in line for line in run.warnings)
    assert all(torch.equal(model.state("reports")[k], v) for k, v in saved["weights"].items())
    corpus = toy_corpus()
    _, val = studies_of(corpus, 2, run)
    held = Reports(corpus, val, model.vocabulary, 32, 16)
    pixels, mask = held.pixels(range(len(held)))
    with torch.no_grad():
        total, words = report_loss(model.network, pixels, mask, held.tokens(range(len(held))))
    assert float(total) / words == pytest.approx(min(losses), rel=1e-4)


@pytest.mark.parametrize("kill_after", [2, 5])
def test_a_killed_fit_ends_in_the_same_bits(tmp_path: Path, kill_after: int) -> None:
    tiny = {"flip": True, "whiten": 6, "standardise": True, "schedule": "cosine", "alike": True}
    whole = fitted(tmp_path / "whole", **tiny)[0].state("reports")
    folder = tmp_path / "killed"
    folder.mkdir()
    first = make(**tiny)
    with pytest.raises(Killed):
        first.fit(first.stages(None)[1], toy_corpus(), ToyRun(folder, kill_after=kill_after))
    assert same(whole, fitted(folder, **tiny)[0].state("reports"))


def test_seeds_differ_and_are_kept(tmp_path: Path) -> None:
    one, two, other = (
        fitted(tmp_path / str(i), epochs=1, seed=seed)[0].state("reports")
        for i, seed in enumerate((0, 0, 1))
    )
    assert same(one, two)
    assert not same(one, other)


def test_the_loss_counts_words_and_the_end_once() -> None:
    config = toy_config()
    corpus = toy_corpus(toy_samples(8))
    train, _ = studies_of(toy_corpus(), 2, ToyRun(Path()))
    vocabulary = Vocabulary.of("words", [study.report for study in train], 1)
    reports = Reports(corpus, train[:3], vocabulary, 32, 16)
    with seeded(0):
        network = ReportNetwork(config, len(vocabulary)).eval()
    pixels, mask = reports.pixels([0, 1, 2])
    ids = reports.tokens([0, 1, 2])
    filled = torch.nn.functional.pad(ids, (0, 3))
    with torch.no_grad():
        total, words = report_loss(network, pixels, mask, ids)
        again, as_many = report_loss(network, pixels, mask, filled)
    assert words == as_many == 3 * 13  # twelve words and dots, and the end
    assert float(total) == pytest.approx(float(again), rel=1e-5)


def test_statistics_are_those_of_images_as_they_are_evaluated(tmp_path: Path) -> None:
    model, run = fitted(tmp_path, epochs=1, lr=0.05, train_size=32, statistics_studies=12, batch=12)
    train, _ = studies_of(toy_corpus(), 2, run)
    images, mask = pictures([int(study.views[0].patient or "") for study in train])
    network = model.network
    with torch.no_grad():
        x = network.see(images, mask).stages[2]
        x = network.shortcut[0](x)
    assert torch.allclose(network.shortcut[1].running_mean, x.mean((0, 2, 3)), atol=1e-5)
    assert network.shortcut[1].momentum == 0.1
    assert torch.equal(  # CLIP's own are left alone
        network.clip.visual.bn1.running_mean, torch.zeros_like(network.clip.visual.bn1.running_mean)
    )


def test_batches_of_like_length_hold_every_study_once() -> None:
    lengths = [4, 12, 7, 9, 3, 12, 5, 8, 11, 6]
    samples = [
        replace(s, text=" ".join(["disc"] * lengths[int(s.patient or "") % 10]))
        for s in toy_samples(40)
    ]
    train, _ = studies_of(toy_corpus(samples), 2, ToyRun(Path()))
    vocabulary = Vocabulary.of("words", [study.report for study in train], 1)
    reports = Reports(toy_corpus(samples), train, vocabulary, 32, 16)
    order = list(range(len(train)))[::-1]
    plain, alike = reports.batches(order, 4, alike=False), reports.batches(order, 4, alike=True)
    assert [i for batch in plain for i in batch] == order
    assert sorted(i for batch in alike for i in batch) == sorted(order)
    assert [len(batch) for batch in plain[:-1]] == [4] * (len(plain) - 1)

    def filling(batches: Sequence[Sequence[int]]) -> int:
        return sum(int((reports.tokens(batch)[:, 1:] == 0).sum()) for batch in batches)

    assert filling(alike) < filling(plain) / 2
    longest = [max(len(reports.ids[i]) for i in batch) for batch in alike]
    assert longest != sorted(longest)  # not from short to long


def test_the_rate_follows_its_schedule() -> None:
    steps = toy_config(schedule="step", lr=1.0, lr_step=2, lr_factor=0.5, epochs=6)
    assert [learning_rate(steps, step, 2) for step in range(0, 12, 2)] == [
        1,
        1,
        0.5,
        0.5,
        0.25,
        0.25,
    ]
    wave = toy_config(schedule="cosine", lr=1.0, epochs=10)
    rates = [learning_rate(wave, step, 10) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] < 0.001


# --- what it takes of a corpus ----------------------------------------------------------------


def test_studies_are_grouped_frontal_first() -> None:
    run = ToyRun(Path())
    train, val = studies_of(toy_corpus(), 2, run)
    assert (len(train), len(val)) == (12, 4)
    assert [view.id for view in train[0].views] == ["0-0", "0-1"]
    assert train[0].report == report(0)
    assert not run.warnings


def test_odd_studies_are_counted() -> None:
    samples = toy_samples(16)
    samples += [replace(samples[0], id="0-2", view="AP")]  # a third image
    samples = [replace(s, text=" . ") if s.study == "s1" else s for s in samples]  # no word
    samples = [replace(s, text=None) if s.study == "s2" else s for s in samples]
    samples = [s for s in samples if s.id != "3-1"]  # one view alone
    samples = [replace(s, study=None) if s.id == "3-0" else s for s in samples]
    run = ToyRun(Path())
    train, _ = studies_of(toy_corpus(samples), 2, run)
    assert "2 of 16 studies have no report and are left out." in run.warnings
    assert any(line.startswith("1 of 16 studies have more than 2 images") for line in run.warnings)
    found = {study.views[0].patient: [v.id for v in study.views] for study in train}
    assert found["0"] == ["0-0", "0-2"]  # PA, AP; the lateral one is left
    assert found["3"] == ["3-0"]
    assert not {"1", "2"} & set(found)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_without_reports_is_refused(part: str) -> None:
    samples = [replace(s, text="") if s.split == part else s for s in toy_samples(16)]
    with pytest.raises(DataError, match=f"no study with a report in its part '{part}'"):
        studies_of(toy_corpus(samples), 2, ToyRun(Path()))


def test_one_view_and_two_train_together(tmp_path: Path) -> None:
    samples = [s for s in toy_samples(16) if not (s.id.endswith("-1") and s.study == "s5")]
    model, run = fitted(tmp_path, corpus=toy_corpus(samples), epochs=1)
    images, mask = pictures([5])
    assert isinstance(model.generate_reports(images[:, :1], mask[:, :1])[0], str)
    assert len(run.losses) == 3


def test_long_reports_and_rare_words_are_counted(tmp_path: Path) -> None:
    samples = toy_samples(16)
    long = " ".join(["There is a disc and a disc."] * 4)
    samples = [replace(s, text=long) if s.study == "s0" else s for s in samples]
    samples = [replace(s, text="A haematoma.") if s.study == "s1" else s for s in samples]
    model, run = fitted(tmp_path, corpus=toy_corpus(samples), epochs=1, min_frequency=2)
    assert any(
        line.startswith("1 of 12 training reports have more than 14 tokens and are cut after 15")
        for line in run.warnings
    )
    assert any("1 of " in line and "less than 2 times" in line for line in run.warnings)
    assert "haematoma" not in model.vocabulary.tokens
    images, mask = pictures(range(4))
    assert all(len(row.split()) <= 15 for row in model.generate_reports(images, mask))


def test_byte_pairs_train_with_clips_own_table(tmp_path: Path) -> None:
    model, _ = fitted(tmp_path, epochs=1, vocabulary="bpe", max_length=20)
    clip = model.network.clip.token_embedding.weight
    assert torch.equal(model.network.words.weight, model.vocabulary.clip_rows(clip))
    images, mask = pictures(range(2))
    assert len(model.generate_reports(images, mask)) == 2


def test_the_leaking_form_warns(tmp_path: Path) -> None:
    _, run = fitted(tmp_path, epochs=1, leaks=True)
    assert any("which leaks" in line for line in run.warnings)


def test_a_loss_that_is_no_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(CellError, match=r"stage 'reports' became nan.*learning rate"):
        fitted(tmp_path, epochs=3, lr=1e30)


def test_crops_stay_inside_and_half_are_mirrored() -> None:
    column = torch.arange(20.0).expand(400, 3, 20, 20)
    with seeded(0):
        cropped = crop_and_flip(column, 16, flip=True)
    falling = cropped[:, 0, 0, 0] > cropped[:, 0, 0, -1]
    assert 150 < int(falling.sum()) < 250
    assert (cropped[..., -1] - cropped[..., 0]).abs().unique().tolist() == [15.0]
    assert sorted(cropped[~falling, 0, 0, 0].unique().tolist()) == [0.0, 1.0, 2.0, 3.0, 4.0]
    with seeded(0):
        assert not (crop_and_flip(column, 16, flip=False)[:, 0, 0, 0] > 4).any()
