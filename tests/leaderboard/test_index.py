"""The index: every model on every task, and why a value is not there."""

from __future__ import annotations

from pathlib import Path

from runs import task, write_run

from medbench.leaderboard.build import build

TASKS = {name: task(name=name, title=f"Title of {name}") for name in ("covid-ct", "covidx", "rsna")}


def write(root: Path, model: str, name: str, **changes: object) -> None:
    write_run(root, model, spec=TASKS[name], tail=str(len(list(root.glob("*")))), **changes)


def index(root: Path) -> list[str]:
    build([root / "r"], root / "out", TASKS)
    return (root / "out" / "README.md").read_text(encoding="utf-8").splitlines()


def matrix(text: list[str], title: str) -> dict[str, list[str]]:
    """Rows of the table under a heading: model to cells."""
    start = text.index(title)
    rows = []
    for line in text[start + 2 :]:
        if not line.startswith("|"):
            break
        if not line.startswith("|---"):
            rows.append(line.strip("| ").split(" | "))
    return {row[0]: row[1:] for row in rows}


def test_models_meet_tasks_and_a_missing_cell_says_why(tmp_path: Path) -> None:
    root = tmp_path / "r"
    root.mkdir()
    write(root, "good", "covid-ct", skill=2.0)
    write(root, "poor", "covid-ct", skill=0.2)
    write(root, "good", "covidx", fraction=0.1)
    write(root, "poor", "covidx")
    write(root, "good", "rsna", flags=("limited",))
    write(root, "other", "rsna", metrics={})
    write(root, "third", "rsna", status="failed", metrics={})
    found = matrix(index(tmp_path), "## PHANTOM: linear-probe, preset tiny, protocol clean")
    assert found["Model"] == [
        "[covid-ct](covid-ct.md) auroc ↑", "[covidx](covidx.md) auroc ↑", "[rsna](rsna.md) auroc ↑",
    ]  # fmt: skip
    assert found["good"][0].startswith("**")
    assert found["good"][0].endswith("]**")
    assert found["good"][1:] == ["— (only 10 % of the labels)", "— (limited)"]
    assert not found["poor"][0].startswith("**")
    assert found["poor"][2] == "—"
    assert found["other"] == ["—", "—", "— (auroc undefined)"]
    assert found["third"][2] == "— (failed)"
    assert found["*best baseline*"][0] == "0.500 [0.500, 0.500] *prior*"


def test_tracks_presets_and_adaptations_have_matrices_of_their_own(tmp_path: Path) -> None:
    root = tmp_path / "r"
    root.mkdir()
    write(root, "a", "covid-ct")
    write(root, "a", "covid-ct", adaptation="zero-shot")
    write(root, "a", "covid-ct", track="real")
    titles = [line for line in index(tmp_path) if line.startswith("## ")]
    assert titles == [
        "## linear-probe, preset tiny, protocol clean",
        "## PHANTOM: linear-probe, preset tiny, protocol clean",
        "## PHANTOM: zero-shot, preset tiny, protocol clean",
        "## Tasks",
    ]


def test_the_newest_data_are_shown_and_earlier_ones_named(tmp_path: Path) -> None:
    root = tmp_path / "r"
    root.mkdir()
    write(root, "a", "covid-ct")
    write(root, "b", "covid-ct", manifest="34" * 32)
    write(root, "a", "covid-ct", manifest="34" * 32)
    text = index(tmp_path)
    found = matrix(text, "## PHANTOM: linear-probe, preset tiny, protocol clean")
    assert "—" not in found["a"][0] + found["b"][0]
    assert any("earlier ones stand on the pages of `covid-ct`" in line for line in text)


def test_nine_tasks_and_eight_models_fit_one_matrix(tmp_path: Path) -> None:
    """Sizes that readers will meet: a line per model, the heads short."""
    names = [f"task-{i}" for i in range(9)]
    known = {name: task(name=name) for name in names}
    root = tmp_path / "r"
    root.mkdir()
    first = write_run(root, "model-0", spec=known[names[0]])
    text = (first / "record.json").read_text(encoding="utf-8")
    for name in names:
        for i in range(8):
            changed = text.replace('"model-0"', f'"model-{i}"').replace(names[0], name)
            changed = changed.replace(known[names[0]].sha256, known[name].sha256)
            path = root / f"{name}-{i}" / "record.json"
            path.parent.mkdir()
            path.write_text(changed, encoding="utf-8")
    build([root], tmp_path / "out", known)
    lines = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").splitlines()
    found = matrix(lines, "## PHANTOM: linear-probe, preset tiny, protocol clean")
    assert len(found) == 8 + 2
    assert {len(cells) for cells in found.values()} == {9}
    assert max(len(line) for line in lines if line.startswith("|")) < 400
