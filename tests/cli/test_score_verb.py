"""``medbench score`` on hand-made files of each type, in one process to save its start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medbench.cli import main

RNG = np.random.default_rng(0)


@pytest.fixture
def score(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the verb: exit code, standard output, standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["score", *map(str, words)])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def write(path: Path, kind: str, count: int = 24) -> Path:
    """A small file of a type, with two samples per patient."""
    ids, owners = [f"s{i}" for i in range(count)], [f"p{i // 2}" for i in range(count)]
    if kind == "classification":
        truth = np.arange(count) % 2
        chance = (truth + 3 * RNG.random(count)) / 4
        pd.DataFrame(
            {"sample_id": ids, "patient_id": owners, "label:a": truth, "score:a": chance,
             "threshold:a": 0.5}
        ).to_csv(path, index=False)  # fmt: skip
    elif kind == "report-generation":
        reports = ["The heart is normal.", "There is a left pleural effusion. No pneumothorax."]
        pd.DataFrame(
            {"sample_id": ids, "patient_id": owners,
             "reference": [reports[i % 2] for i in range(count)],
             "prediction": [reports[i % 3 == 0] for i in range(count)]}
        ).to_json(path, orient="records", lines=True)  # fmt: skip
    elif kind == "segmentation":
        masks = RNG.random((count, 12, 12)) > 0.6
        masks[::3] = False
        np.savez(path, sample_id=ids, patient_id=owners, reference=masks,
                 prediction=masks & (RNG.random(masks.shape) > 0.4))  # fmt: skip
    elif kind == "retrieval":
        image = RNG.normal(size=(count, 8))
        np.savez(path, image=image, text=image + 1.5 * RNG.normal(size=image.shape))
    else:
        real, generated = RNG.integers(0, 256, (2, count, 48, 48), dtype=np.uint8)
        features = RNG.normal(size=(2, count, 4))
        np.savez(path, real=real, generated=generated, prompt_id=np.arange(count) // 4,
                 real_features=features[0], generated_features=features[1] + 1,
                 backbone=np.array("inception"))  # fmt: skip
    return path


TYPES = {
    "classification": ("f.csv", "auroc", "prior"),
    "report-generation": ("f.jsonl", "bleu-4", "most-frequent-report"),
    "segmentation": ("f.npz", "dice", "all-empty"),
    "retrieval": ("f.npz", "i2t-recall@1", "chance"),
    "image-generation": ("f.npz", "kid-inception", "real-versus-real"),
}


@pytest.mark.parametrize("kind", TYPES)
def test_a_hand_made_file_of_each_type_is_scored(score: Any, tmp_path: Path, kind: str) -> None:
    name, metric, baseline = TYPES[kind]
    path = write(tmp_path / name, kind)
    code, out, _ = score(path, "--type", kind, "--json")
    assert code == 0
    document = json.loads(out)
    assert document["schema"] == "medbench.score/1"
    assert document["type"] == kind
    assert document["counts"]["scored"] == 24
    value = document["metrics"][metric]
    low, high = value["ci95"]
    assert low <= value["value"] <= high
    assert low < high
    assert metric in document["baselines"][baseline]
    code, out, _ = score(path, "--type", kind)
    assert code == 0
    assert baseline in out


@pytest.mark.parametrize("kind", TYPES)
def test_a_baseline_scored_as_a_model_equals_itself(score: Any, tmp_path: Path, kind: str) -> None:
    """The degenerate case: predictions that are the trivial ones gain nothing over them."""
    name, metric, baseline = TYPES[kind]
    path = write(tmp_path / name, kind)
    if kind == "classification":
        table = pd.read_csv(path)
        table["score:a"] = table["label:a"].mean()
        table.to_csv(path, index=False)
    elif kind == "report-generation":
        table = pd.read_json(path, lines=True)
        counts = table["reference"].value_counts()
        table["prediction"] = min(counts[counts == counts.max()].index)
        table.to_json(path, orient="records", lines=True)
    else:
        with np.load(path, allow_pickle=False) as found:
            arrays = dict(found)
        if kind == "segmentation":
            arrays["prediction"] = np.zeros_like(arrays["reference"])
        elif kind == "retrieval":
            arrays["image"] = arrays["text"] = np.ones((24, 3))
        else:
            # the same two halves as the floor's
            order = np.random.default_rng(0).permutation(24)
            for kept in ("real", "real_features"):
                halves = arrays[kept][order[::2]], arrays[kept][order[1::2]]
                arrays[kept], arrays[kept.replace("real", "generated")] = halves
            del arrays["prompt_id"]
        np.savez(path, **arrays)
    document = json.loads(score(path, "--type", kind, "--json")[1])
    value = document["metrics"][metric]["value"]
    if kind == "image-generation":
        assert abs(value) < 0.5, "halves of one set are alike"
    else:
        assert value == pytest.approx(document["baselines"][baseline][metric]["value"])


BAD = {
    "NaN": ("classification", "sample_id,label:a,score:a\nx,1,nan\ny,0,0.2\n", "finite"),
    "infinity": ("classification", "sample_id,label:a,score:a\nx,1,inf\ny,0,0.2\n", "finite"),
    "missing ids": ("classification", "label:a,score:a\n1,0.2\n", "sample_id"),
    "a blank id": ("classification", "sample_id,label:a,score:a\n,1,0.3\ny,0,0.2\n", "sample id"),
    "duplicate ids": ("classification", "sample_id,label:a,score:a\nx,1,1\nx,0,0\n", "twice"),
    "words for scores": ("classification", "sample_id,label:a,score:a\nx,1,high\n", "no number"),
    "labels beyond 1": ("classification", "sample_id,label:a,score:a\nx,2,1\n", "0, 1 or blank"),
    "a label without score": ("classification", "sample_id,label:a\nx,1\n", "score of 'a'"),
    "nothing": ("report-generation", "", "cannot be read"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_end_in_one_paragraph_and_exit_3(score: Any, tmp_path: Path, case: str) -> None:
    kind, content, message = BAD[case]
    path = tmp_path / "bad.csv"
    path.write_text(content)
    code, out, err = score(path, "--type", kind)
    assert (code, out) == (3, "")
    assert message in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


def test_one_class_and_two_samples_are_told_not_hidden(score: Any, tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text("sample_id,label:a,score:a,label:b,score:b\nx,1,.9,1,.3\ny,0,.2,1,.4\n")
    code, out, _ = score(path, "--type", "classification", "--json")
    assert code == 0
    document = json.loads(out)
    assert any("b" in note and "one class" in note for note in document["notes"])
    assert document["counts"]["scored"] == 2


def test_wrong_words_end_in_exit_2(score: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "f.csv", "classification")
    assert score(path, "--type", "clasification")[0] == 2
    assert score(path, "--type", "classification", "--task", "iu-xray-report")[0] == 2
    assert score(tmp_path / "none.csv", "--type", "classification")[0] == 3


def test_backbone_weights_are_taken_and_checked(score: Any, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    real, generated = RNG.integers(0, 256, (2, 8, 48, 48), dtype=np.uint8)
    np.savez(tmp_path / "f.npz", real=real, generated=generated)
    words = (tmp_path / "f.npz", "--type", "image-generation", "--json")
    code, out, _ = score(*words)
    assert code == 0
    assert any("--backbone xrv=PATH" in note for note in json.loads(out)["notes"])
    other = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, other)
    code, out, err = score(*words, "--backbone", f"xrv={other}")
    assert (code, out) == (3, "")
    assert "not of the xrv backbone" in err
    twice = ("--backbone", f"xrv={other}", "--backbone", f"xrv={tmp_path / 'f.safetensors'}")
    for given, number, message in (
        (("--backbone", "phantom=x"), 2, "inception-torchvision"),
        (("--backbone", f"xrv={tmp_path / 'none.pt'}"), 3, "none.pt"),
        (("--backbone", f"xrv={tmp_path / 'f.npz'}"), 3, "no known format"),
        (twice, 3, "f.safetensors"),
    ):
        code, out, err = score(*words, *given)
        assert (code, out) == (number, "")
        assert message in err
    # without the option nothing of an earlier one is left
    assert score(*words)[0] == 0
