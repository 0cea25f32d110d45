"""Study files: those that are contributed, and what is wrong with bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_cells import hypothesis, registry, study

from medbench.errors import MedbenchError, UsageError
from medbench.plugins import Registry, discover
from medbench.run.settings import configure
from medbench.schemas.study import load_study
from medbench.study.catalogue import check, find_study, study_files

GOOD = """
schema = "medbench.study/1"
name = "x"
title = "X"
description = "X."
seeds = [0]

[[hypotheses]]
name = "first"
claim = "A is better."
a = { model = "good", task = "covid-ct", adaptation = "linear-probe" }
b = { model = "poor", task = "covid-ct", adaptation = "linear-probe" }
metric = "auroc"
"""


@pytest.fixture(scope="module")
def known() -> Registry:
    return discover(third_party=False)


def test_the_papers_of_all_five_systems_have_studies(known: Registry) -> None:
    models = {
        side.model.partition("@")[0]
        for path in study_files(known).values()
        for h in load_study(path).hypotheses
        for side in (h.a, h.b)
    }
    assert models >= {"radclip", "cls-clip", "adaptor", "unicrossadapter", "roentgen"}


@pytest.mark.parametrize("name", sorted(study_files(discover(third_party=False))))
def test_a_contributed_study_can_be_run(name: str, known: Registry) -> None:
    """Every name in it exists, and every setting fits its model at every preset."""
    spec = find_study(name, known)
    models = {side.model for h in spec.hypotheses for side in (h.a, h.b)}
    if any(m.startswith("roentgen") for m in models) and "roentgen" not in known.names("models"):
        pytest.skip("the model roentgen is not there")
    check(spec, known)
    for h in spec.hypotheses:
        for side in (h.a, h.b):
            base, _, variant = side.model.partition("@")
            model = known.model(base)
            for preset in model.presets or ("tiny",):
                owner = known.owner("models", base)
                found = model.variant(variant) if variant else None
                configure(model, owner, preset, found, dict(side.settings))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds = [0]", "seeds = []"), "line 6: 'seeds'"),
        (("seeds = [0]", "seeds = [0, 0]"), "a seed stands twice"),
        (('metric = "auroc"', 'metric = "auroc"\nmargn = 1'), "'hypotheses.0.margn': Extra inputs"),
        (('model = "poor"', 'model = "good"'), "a and b are the same"),
        (('name = "first"', 'name = "First"'), "line 9: 'hypotheses.0.name'"),
        (('name = "x"', "name = x"), "is not valid TOML"),
    ],
)
def test_a_mistake_is_named_with_its_line(
    change: tuple[str, str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(GOOD)
    assert load_study(path).name == "x"
    path.write_text(GOOD.replace(*change))
    with pytest.raises(UsageError) as caught:
        load_study(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"b": "poor@wid"},
            "side B: There is no variant of poor called 'wid'. Did you mean 'wide'",
        ),
        ({"a": "goood"}, "side A: There is no model called 'goood'. Did you mean 'good'?"),
        ({"metric": "bleu-4"}, "There is no metric called 'bleu-4'"),
        ({"metric": "auprc"}, "Metric 'auprc' is not one of covid-ct"),
    ],
)
def test_a_missing_name_is_named_with_its_place(
    changes: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(MedbenchError) as caught:
        check(study(hypothesis(**changes)), registry(tmp_path))
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith("Study 'toy-study', hypothesis 'first'")
    assert message in str(caught.value)


def test_an_adaptation_must_be_said(tmp_path: Path) -> None:
    asked = hypothesis()
    asked["a"] = {"model": "good", "task": "covid-ct"}
    with pytest.raises(UsageError, match="say with which adaptation: linear-probe, zero-shot"):
        check(study(asked), registry(tmp_path))


def test_two_studies_of_one_name_are_refused(tmp_path: Path) -> None:
    known = registry(tmp_path)
    for folder in (tmp_path, tmp_path / "other"):
        (folder / "studies").mkdir(parents=True)
        (folder / "studies" / "x.toml").write_text(GOOD)
    (tmp_path / "other" / "more.toml").write_text("")
    plugin = known.plugins[0]
    plugin.specs["tasks"].append(tmp_path / "other" / "more.toml")
    from pluggy import PluginManager

    with pytest.raises(UsageError, match="Two studies are called 'x'"):
        study_files(Registry([plugin], PluginManager("medbench")))
