"""Every way to break the contract is found by its check, and told in words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from medbench.testing import Result

Rung = Callable[..., Result]


@pytest.mark.parametrize(
    ("way", "check", "words"),
    [
        ("unlike-weights", "construct", "two objects of one seed differ"),
        ("no-image-size", "construct", "image_size"),
        ("undeclared-corpus", "pretraining", "'mimic-cxr', which the spec does not name"),
        ("raises-in-fit", "fit", "divides by nothing"),
        ("exits-in-fit", "fit", "fit has had enough"),
        ("settings-in-state", "fit", "'settings' is of type dict"),
        ("loss-rises", "loss", "from a mean loss of 1 to 3"),
        ("pickle-in-state", "state", "hides a pickle in 'settings'"),
        ("nan", "outputs", "6 of 6 rows hold NaN"),
        ("wrong-count", "outputs", "shape (5, 8) for 6 inputs"),
        ("wrong-dtype", "outputs", "torch.int64, not floating point"),
        ("not-normalised", "outputs", "not L2-normalised"),
        ("other-space", "outputs", "encode_texts 5"),
        ("out-of-range", "outputs", "not in [0, 1]"),
        ("exits", "outputs", "encode_volumes has had enough"),
        ("random-answers", "determinism", "encode_images: answers differ"),
        ("unseeded-fit", "determinism", "differs in 'layer.bias'"),
        ("sees-the-batch", "batches", "one by one instead of all at once, encode_images"),
        ("sees-padding", "batches", "encode_volumes"),
        ("mutates-its-input", "side-effects", "its input images"),
        ("moves-a-buffer", "side-effects", "num_batches_tracked"),
        ("draws-globally", "side-effects", "the generator of random"),
        ("forgets-a-layer", "save-load", "not in state()"),
        ("keeps-its-inputs", "memory", "something keeps inputs"),
    ],
)
def test_a_breach_is_found_and_named(climb: Rung, way: str, check: str, words: str) -> None:
    before = () if check in ("construct", "pretraining", "fit") else ("fit",)
    result = climb("misbehaving", f"mis-{way}", *before, check)
    assert result.status == "failed", result
    assert words in result.reason


@pytest.mark.parametrize(
    "check",
    [
        "construct", "pretraining", "loss", "state", "outputs", "determinism", "batches",
        "side-effects", "save-load", "memory",
    ],
)  # fmt: skip
def test_a_good_model_passes(climb: Rung, check: str) -> None:
    before = () if check in ("construct", "pretraining") else ("fit",)
    result = climb("misbehaving", "mis-well-behaved", *before, check)
    assert result.status == "passed", result


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("broken_import", "a_library_that_is_not_installed"),
        ("raising_hook", "the dataset list is on fire"),
        ("incompatible", "supports plugin API 99; this medbench speaks 1"),
        ("exits", "goodbye"),
        ("exits_in_hook", "no models for you"),
    ],
)
def test_a_plugin_that_does_not_register_fails_with_its_own_error(
    climb: Rung, package: str, words: str
) -> None:
    result = climb(package, "", "spec")
    assert result.status == "failed"
    assert words in result.reason
    assert result.traceback


def test_importing_a_heavy_library_to_list_models_is_found(climb: Rung) -> None:
    result = climb("heavy", "", "light-import")
    assert result.status == "failed"
    assert "imports matplotlib" in result.reason
    assert climb("able_model", "", "light-import").status == "passed"


def test_what_cannot_be_checked_is_skipped_with_its_reason(climb: Rung) -> None:
    result = climb("able_model", "able", "loss")
    assert result.status == "skipped"
    assert "nothing to train" in result.reason


@pytest.mark.gpu
def test_cpu_and_gpu_are_compared(climb: Rung) -> None:
    assert climb("misbehaving", "mis-well-behaved", "fit", "devices").status == "passed"
    result = climb("misbehaving", "mis-stays-on-the-cpu", "fit", "devices")
    assert result.status == "failed"
    assert "same device" in result.reason
