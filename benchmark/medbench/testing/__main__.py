"""What `medbench.testing.supervise` starts: ``python -m medbench.testing PLUGIN FOLDER MODEL``.

It appends to a file in FOLDER which check it is at and what came of it, and skips what is there
already.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medbench.errors import UsageError
from medbench.testing.candidate import Candidate
from medbench.testing.ladder import Check, do, footing, rungs
from medbench.testing.results import Result
from medbench.testing.supervise import PROGRESS


class Climb:
    """The ladder, from where the file says that it was left."""

    def __init__(self, plugin: str, folder: Path, model: str) -> None:
        self.candidate = Candidate(plugin, model, folder)
        self.folder = folder
        self.file = folder / PROGRESS
        self.results = [
            Result(**{key: value for key, value in told.items() if key != "what"})
            for told in self._told()
            if told["what"] == "result"
        ]
        self._subject: Any = None

    def _told(self) -> list[dict[str, Any]]:
        if not self.file.is_file():
            return []
        return [json.loads(line) for line in self.file.read_text(encoding="utf-8").splitlines()]

    def tell(self, what: str, **values: Any) -> None:
        """One line, whole, behind what is there."""
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"what": what, **values}) + "\n")

    def all(self) -> None:
        """Every rung that is not settled yet."""
        models: list[str] = [""]
        if not self._failed("spec"):
            # told before the models are known: discovery may be where it ends
            self.one(*next(rungs([])))
        if not self._failed("spec"):
            models = list(self.candidate.models)
        self.tell("models", models=models)
        for check, model in rungs(models):
            self.one(check, model)
        self.tell("end")

    def one(self, check: Check, model: str) -> None:
        """One rung, unless it is settled or has nothing to stand on."""
        if any((r.check, r.model) == (check.name, model) for r in self.results):
            return
        below = footing(check, model, self.results)
        if below:
            reason = f"it stands on '{below}', which failed"
            result = Result(check.name, model, "skipped", reason)
        else:
            self.tell("at", check=check.name, model=model)
            result = do(check, model, self._subject_of(model) if check.model else self.candidate)
        self.results.append(result)
        self.tell("result", **asdict(result))

    def _failed(self, check: str) -> bool:
        return any(r.check == check and r.status == "failed" for r in self.results)

    def _subject_of(self, model: str) -> Any:
        from medbench.testing.subject import Subject

        if self._subject is None or self._subject.model != model:
            self._subject = Subject(self.candidate.registry, model, self.folder)
            if any((r.check, r.model, r.status) == ("fit", model, "passed") for r in self.results):
                self._subject.recall()
        return self._subject


def main() -> None:
    plugin, folder, model = sys.argv[1:]
    climb = Climb(plugin, Path(folder), model)
    try:
        climb.all()
    except UsageError as error:
        climb.tell("usage", message=str(error))


if __name__ == "__main__":
    main()
