"""From runs on disk to verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from study_cells import cell, entries, hypothesis, registry, study

import medbench.study.judge as judging
from leaderboard.runs import predictions
from medbench.errors import UsageError, VerificationError
from medbench.schemas import study as schema
from medbench.study.judge import judge


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`good` far ahead of `poor`, `poor@wide` exactly as good as `poor`, over three seeds."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        cell(folder, "good", seed, 3.0)
        cell(folder, "good", seed, 3.0, width=20)
        cell(folder, "poor", seed, 0.3, trainable=50)
        cell(folder, "poor@wide", seed, 0.3, width=32)
    return folder


def by_name(found: schema.StudyResult) -> dict[str, schema.Tested]:
    (part,) = found.results
    return {h.name: h for h in part.hypotheses}


def test_a_clear_lead_supports_the_claim_and_refutes_its_opposite(
    runs: Path, tmp_path: Path
) -> None:
    spec = study(hypothesis("ahead"), hypothesis("behind", a="poor", b="good"))
    found = judge(spec, entries(runs), registry(tmp_path))
    (part,) = found.results
    assert part.setting.title == "PHANTOM, preset tiny, fp32"
    ahead, behind = part.hypotheses
    assert (ahead.verdict, behind.verdict) == ("supported", "not supported")
    assert ahead.effect == pytest.approx(-behind.effect)
    assert ahead.ci95[0] > 0 > behind.ci95[1]
    assert ahead.seeds == (0, 1, 2)
    assert len(ahead.effects) == len(ahead.a.runs) == 3
    records = {e.record.run_id: e.record for e in entries(runs)}
    assert ahead.a.values == pytest.approx(
        [records[run].metrics["auroc"].value for run in ahead.a.runs]
    )


def test_equal_models_are_inconclusive(runs: Path, tmp_path: Path) -> None:
    spec = study(hypothesis(a="poor", b="poor@wide"))
    (only,) = judge(spec, entries(runs), registry(tmp_path)).results[0].hypotheses
    assert (only.verdict, only.effect, only.p_holm) == ("inconclusive", 0.0, 1.0)


def test_equal_models_are_as_good_as_each_other_and_not_better_by_a_margin(
    runs: Path, tmp_path: Path
) -> None:
    spec = study(
        hypothesis("as-good", a="poor", b="poor@wide", margin=-0.01),
        hypothesis("better", a="poor", b="poor@wide", margin=0.01),
    )
    found = by_name(judge(spec, entries(runs), registry(tmp_path)))
    assert found["as-good"].verdict == "supported"
    assert found["better"].verdict == "not supported"


def test_p_values_are_corrected_by_hand_over_all_hypotheses_even_those_without_runs(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """p .01, .02, .04 and one without runs: times 4, 3, 2, each at least the one before."""
    real = judging.effect
    given = iter([0.02, 0.01, 0.04])
    monkeypatch.setattr(judging, "effect", lambda *a: real(*a)._replace(p_value=next(given)))
    spec = study(
        hypothesis("one"),
        hypothesis("two"),
        hypothesis("three"),
        hypothesis("absent", b="good@wide"),
    )
    found = by_name(judge(spec, entries(runs), registry(tmp_path)))
    assert [found[n].p_holm for n in ("one", "two", "three", "absent")] == [
        pytest.approx(0.06),
        pytest.approx(0.04),
        pytest.approx(0.08),
        None,
    ]
    assert [found[n].verdict for n in ("one", "two", "three")] == [
        "inconclusive",
        "supported",
        "inconclusive",
    ]
    assert found["absent"].verdict == "inconclusive"
    assert found["absent"].reasons == ("no runs of B",)


def test_settings_tell_runs_of_one_model_apart(runs: Path, tmp_path: Path) -> None:
    asked = hypothesis()
    asked["a"] = {**asked["a"], "settings": {"width": 20}}
    (only,) = judge(study(asked), entries(runs), registry(tmp_path)).results[0].hypotheses
    assert all("_20_" in run for run in only.a.runs)
    asked["a"] = {**asked["a"], "settings": {"width": 99}}
    assert judge(study(asked), entries(runs), registry(tmp_path)).results == ()


def test_one_seed_supports_nothing(runs: Path, tmp_path: Path) -> None:
    (only,) = judge(study(), entries(runs), registry(tmp_path), [1]).results[0].hypotheses
    assert only.verdict == "inconclusive"
    assert only.p_holm < 0.05
    assert only.reasons == ("one seed: what another training would give is not known",)


def test_too_many_trained_parameters_refute_a_claim_of_efficiency(
    runs: Path, tmp_path: Path
) -> None:
    spec = study(hypothesis("thrifty", trained_share=0.2), hypothesis("more", trained_share=0.1))
    found = by_name(judge(spec, entries(runs), registry(tmp_path)))
    assert found["thrifty"].verdict == "supported"
    assert found["thrifty"].reasons == ("A trains 10 parameters and B 50",)
    assert found["more"].verdict == "not supported"


def test_tracks_and_presets_are_judged_apart(tmp_path: Path) -> None:
    for track, preset, better in (
        ("phantom", "tiny", "good"),
        ("phantom", "small", "poor"),
        ("real", "paper", "good"),
    ):
        for seed in range(2):
            for model in ("good", "poor"):
                skill = 3.0 if model == better else 0.3
                cell(tmp_path, model, seed, skill, preset=preset, track=track)
    found = judge(study(seeds=[0, 1]), entries(tmp_path), registry(tmp_path))
    assert {part.setting.title: part.hypotheses[0].verdict for part in found.results} == {
        "PHANTOM, preset small, fp32": "not supported",
        "PHANTOM, preset tiny, fp32": "supported",
        "real data, preset paper, fp32": "supported",
    }


def test_runs_that_cannot_be_ranked_support_nothing(tmp_path: Path) -> None:
    for seed in range(2):
        cell(tmp_path, "good", seed, 3.0, flags=("contaminated",))
        cell(tmp_path, "poor", seed, 0.3)
    (only,) = judge(study(), entries(tmp_path), registry(tmp_path)).results[0].hypotheses
    assert only.verdict == "inconclusive"
    assert only.reasons == (
        "contaminated runs support nothing",
        "without seed 2",
    )


def test_records_without_predictions_are_not_compared(tmp_path: Path) -> None:
    for seed in range(2):
        for model in ("good", "poor"):
            folder = cell(tmp_path, model, seed)
            (folder / "predictions.parquet").unlink()
    (only,) = judge(study(), entries(tmp_path), registry(tmp_path)).results[0].hypotheses
    assert (only.verdict, only.effect) == ("inconclusive", None)
    assert "no predictions beside the records, so nothing can be compared" in only.reasons


def test_changed_predictions_are_refused(tmp_path: Path) -> None:
    for seed in range(2):
        cell(tmp_path, "good", seed)
        folder = cell(tmp_path, "poor", seed)
    predictions(5.0, 77).write(folder / "predictions.parquet")
    with pytest.raises(VerificationError, match="does not have the hash in its record"):
        judge(study(), entries(tmp_path), registry(tmp_path))


def test_a_metric_of_another_card_is_not_compared(tmp_path: Path) -> None:
    for seed in range(2):
        for model in ("good", "poor"):
            path = cell(tmp_path, model, seed) / "record.json"
            record = json.loads(path.read_text())
            record["metrics"]["auroc"]["card_sha256"] = "0" * 64
            path.write_text(json.dumps(record))
    (only,) = judge(study(), entries(tmp_path), registry(tmp_path)).results[0].hypotheses
    assert "auroc was scored by another identity card than this medbench has" in only.reasons


def test_two_versions_of_the_data_are_refused(runs: Path, tmp_path: Path) -> None:
    for model in ("good", "poor"):
        cell(tmp_path, model, 0, manifest="ab" * 32, tail="_other")
    with pytest.raises(UsageError, match="two versions of the data"):
        judge(study(), entries(runs) + entries(tmp_path), registry(tmp_path))


def test_the_verdicts_do_not_depend_on_the_order_of_runs(runs: Path, tmp_path: Path) -> None:
    given = entries(runs)
    known = registry(tmp_path)
    assert judge(study(), given, known) == judge(study(), given[::-1], known)


def test_published_runs_give_the_same_verdicts(runs: Path, tmp_path: Path) -> None:
    """Keys in place of ids change nothing but who is drawn."""
    from medbench.leaderboard.build import publish

    for path in runs.iterdir():
        publish(path, tmp_path)
    known = registry(tmp_path)
    mine, theirs = (judge(study(), entries(p), known) for p in (runs, tmp_path / "records"))
    assert mine == theirs
