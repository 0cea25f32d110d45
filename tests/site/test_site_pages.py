"""The pages: whole, linked, readable without scripts, true to the records, the same for equal
input."""

from __future__ import annotations

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from made_site import EVIL, edit, made, task_of, write_records
from typer.testing import CliRunner

from leaderboard.runs import write_run
from medbench.cli import ALL, program
from medbench.errors import DataError, UsageError
from medbench.leaderboard.build import held
from medbench.plugins import Registry
from medbench.schemas.task import load_task
from medbench.site import sources
from medbench.site.build import build
from medbench.site.sources import stale
from medbench.site.tables import slug

VOID = {"meta", "link", "wbr"}


class Parsed(HTMLParser):
    """A page taken apart; tags must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def pages(boards: Path) -> dict[str, Parsed]:
    site = boards / "site"
    return {
        path.relative_to(site).as_posix(): Parsed(path.read_text("utf-8"))
        for path in sorted(site.rglob("*.html"))
    }


def test_there_is_a_page_for_each_thing(pages: dict[str, Parsed]) -> None:
    assert {"index.html", "tasks/covid-ct.html", "models/radclip.html"} <= set(pages)
    assert {"metrics/auroc.html", "studies/slice-pooling.html"} <= set(pages)


def test_pages_have_landmarks_headings_in_order_and_tables_that_can_be_read_out(
    pages: dict[str, Parsed],
) -> None:
    for name, page in pages.items():
        ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(ids) == len(set(ids)), name
        assert page.all("html")[0]["lang"] == "en"
        assert [len(page.all(tag)) for tag in ("main", "header", "nav", "footer", "h1")] == [1] * 5
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
        assert all(b <= a + 1 for a, b in pairwise(levels)), name
        assert page.all("a")[0] == {"class": "skip", "href": "#main"}
        assert len(page.all("table")) == len(page.all("caption"))
        assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
        assert not [a for _, a in page.tags if "style" in a or any(k.startswith("on") for k in a)]
        assert all("src" in script for script in page.all("script")), "nothing inline"


def test_every_link_and_file_is_there_and_none_leads_off_the_site(
    boards: Path, pages: dict[str, Parsed]
) -> None:
    found = 0
    for name, page in pages.items():
        here = boards / "site" / name
        for _, attributes in page.tags:
            for key in ("href", "src"):
                target = attributes.get(key, "")
                if not target or target == "data:,":
                    continue
                parts = urlsplit(target)
                assert not parts.scheme, target
                assert not parts.netloc, target
                path = (here.parent / unquote(parts.path)).resolve() if parts.path else here
                assert path.is_file(), f"{name}: {target}"
                found += path.name == "record.json"
                if parts.fragment:
                    relative = path.relative_to(boards / "site").as_posix()
                    ids = {a.get("id") for _, a in pages[relative].tags}
                    assert parts.fragment in ids, f"{name}: {target}"
    assert found > 5, "records are linked"


def test_only_the_sites_own_files_may_be_loaded(pages: dict[str, Parsed]) -> None:
    for page in pages.values():
        (policy,) = (m["content"] for m in page.all("meta") if "http-equiv" in m)
        assert policy.startswith("default-src 'none'; script-src 'self' file:;")
        assert "unsafe" not in policy
        assert "*" not in policy


def test_values_are_those_of_the_table(boards: Path, pages: dict[str, Parsed]) -> None:
    with (boards / "covid-ct.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["value"]]
    assert rows
    cells = {
        tuple(float(cell[key]) for key in ("data-v", "data-l", "data-h"))
        for cell in pages["tasks/covid-ct.html"].all("td")
        if "data-l" in cell
    }
    for row in rows:
        expected = tuple(float(row[key]) for key in ("value", "ci95_low", "ci95_high"))
        assert any(pytest.approx(expected, abs=1e-5) == cell for cell in cells), row


def test_the_first_page_says_who_leads_whether_it_is_real_and_what_it_cost(
    pages: dict[str, Parsed],
) -> None:
    text = re.sub(r"\s+", " ", pages["index.html"].text)
    assert "PHANTOM" in text
    assert "No run on real data is recorded" in text
    assert re.search(r"covid-ct linear-probe, auroc ↑ radclip real, over 2 others", text)
    assert "of 10" in text, "parameters"


def test_a_missing_cell_says_why(pages: dict[str, Parsed]) -> None:
    text = re.sub(r"\s+", " ", pages["index.html"].text)
    assert re.search(r"open-clip — contaminated", text)


def test_subgroups_stand_with_intervals_and_gaps_by_run(
    boards: Path, pages: dict[str, Parsed]
) -> None:
    text = re.sub(r"\s+", " ", pages["tasks/covid-ct.html"].text)
    assert "a gap need not be the model's doing" in text
    captions = re.findall(r"all labels, [^:]*: auroc by (sex|age)", text)
    assert sorted(captions) == ["age", "sex", "sex"], "radclip's ranking, and that of the other"
    assert (
        "radclip 1 0.812 [0.700, 0.900] n=46 0.750 [0.600, 0.850] n=44 "
        "0.062 [-0.037, 0.177] F against M"
    ) in text
    assert "0.200 [0.050, 0.300] 65 and over against 40-64" in text
    drawn = {
        (cell["data-v"], cell.get("data-l"), cell.get("data-h"))
        for cell in pages["tasks/covid-ct.html"].all("td")
        if "data-v" in cell
    }
    assert ("0.0625", "-0.0375", "0.1775") in drawn


def test_markup_in_a_models_name_is_text(boards: Path, pages: dict[str, Parsed]) -> None:
    name = f"models/{slug(EVIL)}.html"
    assert EVIL in pages[name].text
    assert "not installed" in pages[name].text
    for path in (boards / "site").rglob("*.html"):
        text = path.read_text("utf-8")
        assert "<b>bold" not in text
        assert "<script>alert" not in text


def test_names_become_files_of_their_own_inside_the_folder() -> None:
    names = ["a", "A", "../a", "..", "a/b", "<b>", "", "é", "a" * 300, "con", "x@y"]
    files = [slug(name) for name in names]
    assert len({file.lower() for file in files}) == len(files)
    assert all(re.fullmatch(r"[a-z0-9@.-]+", file) and ".." not in file for file in files)
    assert max(map(len, files)) < 80


def test_a_record_of_a_newer_schema_is_listed_and_the_others_are_built(
    boards: Path, pages: dict[str, Parsed]
) -> None:
    text = pages["index.html"].text
    assert "Unreadable records" in text
    assert "medbench.record/2 is newer than this medbench" in text
    assert "records/covid-ct/cls-clip_covid-ct_tiny_s0_linear-probe_phantom_newer" in text
    assert "models/cls-clip.html" not in pages


def test_a_damaged_record_is_not_passed_over(tmp_path: Path, registry: Registry) -> None:
    write_records(tmp_path, registry)
    path = held(tmp_path)[0]
    path.write_text("{")
    with pytest.raises(DataError, match="not a valid record"):
        made(tmp_path, registry)
    assert not (tmp_path / "site").exists()


def test_no_sample_and_no_place_of_the_machine_is_named(boards: Path) -> None:
    for path in [*(boards / "site").rglob("*.html"), boards / "site" / "built-from.json"]:
        text = path.read_text("utf-8")
        assert "SECRET" not in text
        assert str(boards) not in text


def test_real_and_phantom_stand_apart_and_real_comes_first(
    tmp_path: Path, registry: Registry
) -> None:
    task = task_of(registry)
    for track in ("phantom", "real"):
        run = write_run(tmp_path / "records" / task.name, "radclip", spec=task, track=track)
        (run / "predictions.parquet").unlink()
    made(tmp_path, registry)
    index = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert "PHANTOM, except where it says real." in index
    assert "No run on real data" not in index
    page = (tmp_path / "site" / "tasks" / "covid-ct.html").read_text("utf-8")
    heads = re.findall(r'<h2 id="ranking-\d-head">([^<]+)', page)
    assert heads == [
        "linear-probe, all labels, preset tiny, protocol clean",
        "PHANTOM: linear-probe, all labels, preset tiny, protocol clean",
    ]


@pytest.fixture
def copied(boards: Path, tmp_path: Path) -> Path:
    shutil.copytree(boards, tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def content(site: Path) -> dict[str, bytes]:
    return {
        path.relative_to(site).as_posix(): path.read_bytes()
        for path in site.rglob("*")
        if path.is_file()
    }


def problems(root: Path, registry: Registry) -> list[str]:
    tasks = {name: load_task(registry.task_file(name)) for name in registry.names("tasks")}
    return stale(root / "site", held(root), root, tasks, registry)


def test_building_again_elsewhere_changes_no_byte_and_leaves_no_old_page(
    copied: Path, boards: Path, registry: Registry
) -> None:
    before = content(boards / "site")
    gone = next((copied / "records").rglob("plain_*"))
    kept = gone.rename(copied / "kept")
    made(copied, registry)
    assert f"models/{slug(EVIL)}.html" not in content(copied / "site")
    assert problems(copied, registry) == []
    kept.rename(gone)
    made(copied, registry)
    assert content(copied / "site") == before


def test_a_stale_site_is_noticed(copied: Path, registry: Registry) -> None:
    assert problems(copied, registry) == []
    page = copied / "site" / "index.html"
    text = page.read_text("utf-8")
    page.write_text(text.replace("real, over", "really over"), "utf-8")
    (copied / "site" / "metrics" / "auroc.html").unlink()
    found = " ".join(problems(copied, registry))
    assert "site/index.html is not as it was built" in found
    assert "site/metrics/auroc.html is missing" in found
    page.write_text(text, "utf-8")
    edit(held(copied)[0], notes=["another note"])
    assert "built from other records" in " ".join(problems(copied, registry))


@pytest.mark.parametrize("package", ["leaderboard", "site", "study"])
def test_a_site_of_other_code_is_noticed(
    copied: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str
) -> None:
    for folder in sources.CODE:
        shutil.copytree(folder, tmp_path / "code" / folder.name)
    monkeypatch.setattr(sources, "CODE", [tmp_path / "code" / f.name for f in sources.CODE])
    assert problems(copied, registry) == []
    with (tmp_path / "code" / package / "__init__.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert "built from other records" in " ".join(problems(copied, registry))


def test_a_folder_of_something_else_is_left_alone(
    boards: Path, tmp_path: Path, registry: Registry
) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no site"):
        build(held(boards), tmp_path / "t", tmp_path, boards, registry)
    sealed = {"schema": "medbench.site/1", "inputs_sha256": "", "files": {"../letter.txt": ""}}
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "built-from.json").write_text(json.dumps(sealed))
    with pytest.raises(UsageError, match="holds no site"):
        build(held(boards), tmp_path / "t", tmp_path / "site", boards, registry)
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_the_verb_writes_tables_and_site_and_names_what_it_left_out(
    boards: Path, tmp_path: Path
) -> None:
    words = ["leaderboard", "build", "--root", boards, "--output", tmp_path / "tables"]
    words += ["--site", tmp_path / "site"]
    ran = CliRunner().invoke(program(ALL), [str(word) for word in words])
    assert ran.exit_code == 0, ran.output
    assert "Left out: records/covid-ct/cls-clip" in ran.output
    for name in ("covid-ct.md", "README.md"):
        assert (tmp_path / "tables" / name).read_bytes() == (boards / name).read_bytes()
    text = (tmp_path / "site" / "tasks" / "covid-ct.html").read_text("utf-8")
    assert "record.json" not in text, "records are linked from beside them only"
    assert "radclip_covid-ct_tiny_s0" in text
