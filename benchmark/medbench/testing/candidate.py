"""The plugin as a whole: is it registered, are its specs valid, is listing it light."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medbench.errors import unknown_name
from medbench.testing.results import NotApplicable, Refused

if TYPE_CHECKING:
    from medbench.plugins import Plugin, Registry

#: What costs seconds to import, and so has no place where models are only listed.
HEAVY = (
    "torch", "torchvision", "transformers", "diffusers", "open_clip", "timm", "monai", "pandas",
    "sklearn", "scipy", "matplotlib", "cv2", "tensorflow", "jax",
)  # fmt: skip


@dataclass
class Candidate:
    """A plugin under test, by the name of its entry point.

    Attributes:
        name: of the entry point.
        only: ``name`` or ``name@variant`` of the one model to check; empty: all of them.
        folder: where trained states are kept between processes.
    """

    name: str
    only: str
    folder: Path
    _registry: Registry | None = field(default=None, init=False)

    @property
    def registry(self) -> Registry:
        """First-party plugins and this one, imported on first use."""
        if self._registry is None:
            from medbench.plugins import discover

            self._registry = discover(only=self.name)
        return self._registry

    @property
    def plugin(self) -> Plugin:
        """As discovery left it."""
        found = next((p for p in self.registry.plugins if p.name == self.name), None)
        if found is None:
            raise unknown_name("plugin", self.name, [p.name for p in self.registry.plugins])
        return found

    @property
    def models(self) -> Sequence[str]:
        """The models to check. Raises UsageError when the one asked for is not among them."""
        from medbench.run.request import BASELINE

        names = [name for name in self.plugin.names("models") if name != BASELINE]
        if not self.only:
            return names
        base, _, variant = self.only.partition("@")
        if base not in names:
            raise unknown_name(f"model of plugin {self.name}", base, names)
        if variant and self.registry.model(base).variant(variant) is None:
            known = [v.name for v in self.registry.model(base).variants]
            raise unknown_name(f"variant of {base}", variant, known)
        return [self.only]


def spec(candidate: Candidate) -> str:
    """The plugin is ``ok``, and what it names beside models can be imported and read."""
    from medbench.plugins import load_reference
    from medbench.schemas.task import load_task

    plugin = candidate.plugin
    if plugin.error is not None:
        raise Refused(f"it is {plugin.status}: {plugin.error_text}") from plugin.error
    for path in plugin.specs["tasks"]:
        load_task(path)
    for dataset in plugin.specs["datasets"]:
        load_reference(dataset.reader, plugin)
        if dataset.phantom:
            load_reference(dataset.phantom, plugin)
    for metric in plugin.specs["metrics"]:
        load_reference(metric.function, plugin)
    return ", ".join(
        f"{len(plugin.names(kind))} {kind}" for kind in plugin.specs if plugin.names(kind)
    )


def light_import(candidate: Candidate) -> None:
    """In a fresh process, discovery with this plugin brings no heavy library along."""
    if candidate.plugin.environment is not None:
        raise NotApplicable("listing reads what was written down when it was installed")
    if candidate.plugin.first_party:
        code = "from importlib import import_module; import_module({module!r})"
    else:
        code = "from medbench.plugins import discover; discover(only={name!r})"
    plugin = candidate.plugin
    code = code.format(module=plugin.module.partition(":")[0], name=plugin.name)
    code += "\nimport sys\nprint('HEAVY', *(name for name in sys.argv[1:] if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=False
    )
    last = (done.stdout.splitlines() or [""])[-1].split()
    if done.returncode or last[:1] != ["HEAVY"]:
        raise Refused(f"a fresh process cannot import it: {done.stderr.strip()[-300:]}")
    if last[1:]:
        raise Refused(
            f"listing it imports {', '.join(last[1:])}. Name classes by strings and import "
            "heavy libraries in the module of the model."
        )
