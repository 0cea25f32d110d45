"""The workflows hold what docs/submissions.md says, and a comment cannot be broken out of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from submission.bundles import Desk

GITHUB = Path(__file__).parents[2] / ".github"


def workflow(name: str) -> tuple[dict[str, Any], str]:
    text = (GITHUB / "workflows" / name).read_text(encoding="utf-8")
    return yaml.safe_load(text), text


def test_what_touches_a_bundle_can_write_nothing_and_holds_no_secret() -> None:
    content, text = workflow("submission.yml")
    assert "pull_request_target" not in text
    assert "secrets." not in text
    assert content["permissions"] == {"contents": "read"}
    for name in ("verify", "accept"):
        job = content["jobs"][name]
        assert set(job.get("permissions", {}).values()) <= {"read"}
        checkout = next(s for s in job["steps"] if s.get("uses", "").startswith("actions/checkout"))
        assert checkout["with"]["persist-credentials"] is False
    (base,) = [s for s in content["jobs"]["verify"]["steps"] if "ref" in s.get("with", {})]
    assert "base.sha" in base["with"]["ref"]


def test_what_may_write_runs_nothing_of_the_project() -> None:
    content, _ = workflow("submission.yml")
    publish = content["jobs"]["publish"]
    assert publish["permissions"] == {"contents": "write"}
    commands = " ".join(step.get("run", "") for step in publish["steps"])
    assert not any(word in commands for word in ("medbench submission", "python", "make"))
    comment, text = workflow("submission-comment.yml")
    assert comment["permissions"] == {}
    assert "secrets." not in text
    assert "medbench" not in " ".join(s.get("run", "") for s in comment["jobs"]["comment"]["steps"])


def test_no_expression_of_a_strangers_text_is_put_into_a_script() -> None:
    for name in ("submission.yml", "submission-comment.yml"):
        content, _ = workflow(name)
        for job in content["jobs"].values():
            for step in job["steps"]:
                assert "${{" not in step.get("run", ""), step


def comment(tmp_path: Path, text: str) -> str:
    path = tmp_path / "verification.json"
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(GITHUB / "comment.py"), str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_the_comment_shows_the_verdict_of_every_run(
    here: Desk, bundle: Path, tmp_path: Path
) -> None:
    found = here.verify(bundle)
    text = comment(tmp_path, json.dumps({"bundle": bundle.name, **found.document()}))
    assert text.count("recomputed") == 1 + len(found.runs)
    assert all(run.run_id in text for run in found.runs)
    assert "auroc 0." in text


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"sha256": "```\n@everyone [x](http://e.org)", "verdict": "```", "runs": [],
                    "problems": [{"kind": "```\n# heading", "message": "\u2028```<img>"}]}),
        json.dumps({"runs": 3}), "[", "", "[" * 100_000, "null",
    ],
)  # fmt: skip
def test_a_comment_cannot_be_broken_out_of(tmp_path: Path, text: str) -> None:
    shown = comment(tmp_path, text)
    assert shown.count("```") == 2
    assert shown.rstrip().endswith("\n```")
    body = shown.partition("```text\n")[2]
    assert all(line == "```" or not line.startswith(("#", "`")) for line in body.splitlines())
