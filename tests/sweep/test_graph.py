"""What of a matrix is shared, told before anything is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from medbench.plugins import discover
from medbench.run.request import Request
from medbench.run.resolve import resolve
from medbench.run.stores import Store
from medbench.sweep.graph import Graph, Node, draw


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDBENCH_HOME", str(tmp_path))
    monkeypatch.setenv("MEDBENCH_CONFIG", str(tmp_path / "none.toml"))
    return tmp_path


def drawn(home: Path, *models: str, tasks: tuple[str, ...], **more: object) -> Graph:
    asked = Request(models=models, tasks=tasks, preset="tiny", device="cpu", **more)  # type: ignore[arg-type]
    return draw(resolve(asked, discover(third_party=False)), Store(home))


def by_title(graph: Graph) -> dict[str, Node]:
    return {node.title: node for node in graph.nodes}


def test_variants_share_base_model_training_and_slice_embeddings(home: Path) -> None:
    graph = drawn(home, "radclip", "radclip@mean-pooling", "baseline", tasks=("covid-ct",))
    found = by_title(graph)
    count = {title: len(node.cells) for title, node in found.items()}
    assert count["render covid-ct-md (tiny)"] == 4
    assert count["decode covid-ct-md at 64 px"] == 4
    assert count["baselines of covid-ct"] == 4
    assert count["radclip: general CLIP on scenes, seed 0"] == 2
    assert count["radclip: slice pooling on volumes, seed 0"] == 1
    assert found["radclip: general CLIP on scenes, seed 0"].kind == "base model"
    # mean pooling shares the embeddings of slices with attention, which needs one stage more
    shared = found["radclip: embed covid-ct-md (slices), seed 0"]
    assert len(shared.cells) == 2
    assert found["radclip: slice pooling on volumes, seed 0"].id not in shared.needs
    assert sorted(path.name for path in home.iterdir()) == ["runs"]  # nothing is made for a plan


def test_fractions_and_tasks_share_and_seeds_do_not(home: Path) -> None:
    tasks = ("rsna", "rsna-segmentation")
    graph = drawn(home, "cls-clip", tasks=tasks, fractions=(0.1, 1.0), seeds=(0, 1))
    count = {title: len(node.cells) for title, node in by_title(graph).items()}
    assert count["render rsna-pneumonia (tiny)"] == 8
    for seed in (0, 1):
        assert count[f"cls-clip: CLIP on radiographs and reports, seed {seed}"] == 4
        assert count[f"cls-clip: embed rsna-pneumonia (slices), seed {seed}"] == 2
        assert count[f"cls-clip: embed rsna-pneumonia (patches), seed {seed}"] == 2
    decoding = [node for node in graph.nodes if node.stage == "decode"]
    assert [len(node.cells) for node in decoding] == [4, 4]
    assert decoding[1].after == (decoding[0].id,)  # it may find its images in the first


def test_stages_come_after_what_they_need_and_cells_last(home: Path) -> None:
    graph = drawn(home, "radclip", "cls-clip", tasks=("covid-ct", "rsna"))
    place = {node.id: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        assert all(place[need] < place[node.id] for need in node.needs)
    cells = [node for node in graph.nodes if node.kind == "cell"]
    assert [cell.cells for cell in cells] == [(i,) for i in range(len(graph.plan.cells))]
    assert all(node.gpu == (node.kind not in ("dataset", "baselines")) for node in graph.nodes)
