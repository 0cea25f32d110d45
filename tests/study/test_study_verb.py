"""``medbench study``: what it lists, runs, reuses and refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from program import Medbench

Phantoms = Callable[[str], Path]

STUDY = """
schema = "medbench.study/1"
name = "toys"
title = "Toys"
description = "Toys."
seeds = [0]

[[hypotheses]]
name = "equal"
claim = "Toy is better than itself."
a = { model = "toy", task = "covid-ct", adaptation = "linear-probe" }
b = { model = "toy@plain", task = "covid-ct", adaptation = "linear-probe" }
metric = "auroc"
published = [{ effect = "it was", source = "nowhere" }]

[[hypotheses]]
name = "against-prior"
claim = "Toy is better than the class frequencies."
a = { model = "toy", task = "covid-ct", adaptation = "linear-probe" }
b = { model = "baseline@prior", task = "covid-ct" }
metric = "auroc"
"""


def test_a_study_with_a_missing_variant_is_listed_and_refused_and_others_list(
    medbench: Medbench,
) -> None:
    medbench.install("toy_model")
    (medbench.site / "contributed" / "studies").mkdir(parents=True)
    source = (medbench.site / "toy_model.py").read_text()
    tasks = Path(__file__).parents[2] / "tasks" / "medbench_tasks"
    text = (tasks / "covid-ct.toml").read_text().replace('"covid-ct"', '"toy-ct"', 1)
    (medbench.site / "contributed" / "toy-ct.toml").write_text(text)
    hook = "\n\nfrom pathlib import Path\n\n\n@hookimpl\ndef medbench_tasks():\n    "
    hook += "return [Path(__file__).parent / 'contributed' / 'toy-ct.toml']\n"
    (medbench.site / "toy_model.py").write_text(source + hook)
    broken = STUDY.replace("toy@plain", "toy@gone").replace('"toys"', '"broken"')
    (medbench.site / "contributed" / "studies" / "broken.toml").write_text(broken)
    (medbench.site / "contributed" / "studies" / "mangled.toml").write_text("schema = 1")

    listed = {entry["name"]: entry for entry in medbench("study", "list", "--json").json}
    assert listed["slice-pooling"]["problem"] == ""
    assert len(listed["slice-pooling"]["hypotheses"]) >= 1
    assert "no variant of toy called 'gone'" in listed["broken"]["problem"]
    assert "mangled.toml" in listed["mangled"]["problem"]

    ran = medbench("study", "run", "broken")
    assert ran.code == 2
    assert "hypothesis 'equal', side B: There is no variant of toy called 'gone'" in ran.err
    ran = medbench("study", "run", "slice-poling")
    assert ran.code == 2
    assert "Did you mean 'slice-pooling'?" in ran.err


@pytest.fixture
def toys(medbench: Medbench, phantoms: Phantoms) -> Medbench:
    """The toy model, a study of it, and its data in the configuration file."""
    medbench.install("toy_model")
    lines = [f'{name} = "{phantoms(name)}"' for name in ("covid-ct-md", "image-text-pairs")]
    (medbench.home / "config.toml").write_text("\n".join(["[data]", *lines]))
    (medbench.home / "toys.toml").write_text(STUDY)
    return medbench


def test_a_study_runs_what_is_missing_and_its_runs_can_be_judged_again(toys: Medbench) -> None:
    output = toys.home / "out"
    words = ["study", "run", toys.home / "toys.toml", "--preset", "tiny"]
    ran = toys(*words, "--output", output, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["schema"] == "medbench.study-result/1"
    (part,) = ran.json["results"]
    # the small phantom is a limited one: such runs support nothing, and say so
    assert part["setting"]["limited"] is True
    equal, prior = part["hypotheses"]
    assert equal["verdict"] == prior["verdict"] == "inconclusive"
    assert "limited runs support nothing" in equal["reasons"]
    # the variant's dropout and its data are those of the model: nothing differs
    assert (equal["effect"], equal["p_value"], equal["p_holm"]) == (0, 1, 1)
    assert prior["b"]["values"] == [0.5]
    assert len(list(output.glob("*/record.json"))) == 3

    # one run is lost: it alone is made again, and the verdicts are the same
    shutil.rmtree(next(output.glob("toy_covid-ct*")))
    again = toys(*words, "--output", output, "--json")
    assert again.json == ran.json
    assert again.err.count("already done") == 2

    # the runs in a folder, without running any
    shown = toys(*words, "--from", output).out
    assert "PHANTOM, preset tiny" in shown
    figures, published = shown.split("Published, on other data")
    assert "it was" not in figures
    assert "it was (nowhere)" in published
    refused = toys(*words, "--from", output, "--seed", "7")
    assert refused.code == 3
    assert "No runs of both sides" in refused.err


def test_options_of_running_have_no_place_beside_from(medbench: Medbench) -> None:
    words = ["study", "run", "slice-pooling", "--from", medbench.home]
    refused = medbench(*words, "--limit", "5")
    assert refused.code == 2
    assert "--from runs nothing" in refused.err
    refused = medbench(*words[:-1], medbench.home / "nowhere")
    assert refused.code == 2
    assert "is not a folder" in refused.err


def test_the_committed_records_can_be_judged(medbench: Medbench) -> None:
    records = Path(__file__).parents[2] / "leaderboards" / "records"
    ran = medbench("study", "run", "slice-pooling", "--from", records / "covid-ct", "--json")
    assert ran.code == 0, ran.err
    (part,) = ran.json["results"]
    assert part["setting"]["track"] == "phantom"
    for tested in part["hypotheses"]:
        assert tested["seeds"] == [0, 1, 2]
        low, high = tested["ci95"]
        assert low <= tested["effect"] <= high
        assert json.dumps(tested)
