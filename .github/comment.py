"""A comment from the verification of a submission: ``python comment.py verification.json``.

The file comes from a job that ran beside a stranger's pull request, so it is held for anything: of
whatever it says, plain characters are printed inside one block that shows them as they are.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

MOST_BYTES, MOST_LINES, LONGEST = 4 * 2**20, 120, 300


def plain(value: object) -> str:
    """Printable ASCII without what could end the block."""
    return re.sub(r"[^ -~]|`", "?", str(value))[:LONGEST]


def lines(document: dict[str, object]) -> list[str]:
    """The table: a line per run, and per thing that is wrong."""
    found = [f"bundle   {plain(document.get('bundle'))}", f"sha256   {plain(document['sha256'])}"]
    found += [f"verdict  {plain(document['verdict'])}", ""]
    found += problems(document)
    for run in document["runs"]:
        value = ""
        if run.get("metric") and run.get("value") is not None:
            low, high = run["ci95"]
            value = f"{run['metric']} {run['value']:.3f} [{low:.3f}, {high:.3f}]"
        found.append(plain(f"{run['verdict']:<14}{run['run_id']}  {value}"))
        found += [plain(f"    {reason}") for reason in run["reasons"]]
        found += problems(run)
    return found


def problems(part: dict[str, object]) -> list[str]:
    return [plain(f"    {p['kind']}: {p['message']}") for p in part["problems"]]


def main() -> None:
    text = ["Verification gave no table: see the log of the job."]
    path = Path(sys.argv[1])
    try:
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= MOST_BYTES:
            text = lines(json.loads(path.read_text(encoding="utf-8")))
    except Exception as error:  # anything that is no verification
        text = [f"The verification cannot be read: {plain(type(error).__name__)}."]
    print("What verifying this submission came to (docs/submissions.md says what it proves):\n")
    print("\n".join(["```text", *text[:MOST_LINES], "```"]))


if __name__ == "__main__":
    main()
