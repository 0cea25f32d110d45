"""A model under test: its cell as the harness would resolve it, fresh objects, trained states."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbench.errors import PluginError
from medbench.isolated import IsolatedSpec
from medbench.models.capabilities import Stage, State
from medbench.models.modules import modules_of
from medbench.run.fit import WEIGHTS, construct, guarded, stages_of
from medbench.run.request import DataSource, RunSpec
from medbench.run.settings import configure
from medbench.schemas.specs import PRESETS, DatasetSpec
from medbench.schemas.task import TaskSpec
from medbench.testing.results import NotApplicable

if TYPE_CHECKING:
    from medbench.plugins import Registry

SEED = 0


class Subject:
    """One model, at the smallest preset that needs no published weights, on the CPU.

    ``states`` holds what its stages trained, once check ``fit`` has trained them; it is kept in
    ``folder``, so that a process that takes the place of another need not train again. ``losses``
    has what the loops of its own stages reported: (epoch, loss) in order.
    """

    def __init__(self, registry: Registry, model: str, folder: Path) -> None:
        base, _, name = model.partition("@")
        self.registry = registry
        self.model = model
        self.spec = registry.model(base)
        self.variant = self.spec.variant(name) if name else None
        self.plugin = registry.owner("models", base)
        self.folder = folder
        self.losses: dict[str, list[list[tuple[int, float]]]] = {}
        self.states: dict[str, State] = {}

    def must_be_in_process(self) -> None:
        """Raises NotApplicable for a model of an isolated plugin: what is inside it is out of
        reach."""
        if isinstance(self.spec, IsolatedSpec):
            raise NotApplicable(
                "its weights and memory are in a process of their own; install the plugin without "
                "--isolated to have this checked"
            )

    @cached_property
    def presets(self) -> tuple[str, ...]:
        """Those of the model, or of the variant, smallest first."""
        own = self.variant.presets if self.variant is not None else ()
        return tuple(p for p in PRESETS if p in (own or self.spec.presets or PRESETS))

    @cached_property
    def preset(self) -> str:
        """The smallest one that needs no weights. Raises NotApplicable where there is none."""
        scratch = self.variant is not None and self.variant.from_scratch
        free = [p for p in self.presets if scratch or p not in self.spec.needs_weights]
        if not free:
            raise NotApplicable(
                "every preset needs published weights, and the kit has none: declare a small one "
                "that does not, to have its code checked"
            )
        return free[0]

    @cached_property
    def cell(self) -> RunSpec:
        """The cell of a made-up task, with everything resolved."""
        config, values, assumed = configure(self.spec, self.plugin, self.preset, self.variant, {})
        sources = {
            name: DataSource(self.registry.dataset(name), None, "phantom")
            for name in self.spec.pretraining
        }
        return RunSpec(
            model=self.spec,
            variant=self.variant,
            preset=self.preset,
            config=config,
            config_values=values,
            assumed=assumed,
            distribution=self.plugin.distribution,
            plugin_version=self.plugin.version,
            plugin_package=self.spec.cls.partition(":")[0].partition(".")[0],
            weights=None,
            stage_weights={},
            task=_task(),
            source=DataSource(_DATASET, None, "phantom"),
            corpora=sources,
            protocol="clean",
            adaptation="linear-probe",
            fraction=1.0,
            seed=SEED,
            device="cpu",
            precision="fp32",
            batch_size=4,
            limit=None,
        )

    @cached_property
    def stages(self) -> Sequence[Stage]:
        """What is to be trained, when no weights are given."""
        return stages_of(self.cell, construct(self.cell), None)

    @cached_property
    def image_size(self) -> int:
        """Side of the images that it asks for, in pixels. Raises PluginError when it is none."""
        model = construct(self.cell)
        size = getattr(model, "image_size", None)
        if type(size) is not int or not 1 <= size <= 4096:
            raise PluginError(
                f"image_size of model '{self.model}' is {size!r}; it must be the side of its "
                "images, a number of pixels."
            )
        return size

    def fitted(self, device: str = "cpu") -> Any:
        """A fresh object with every state loaded, ready to predict, as `medbench.run.fit` does."""
        import torch

        model = construct(self.cell)
        for stage in self.stages:
            with guarded(self.cell, f"loading stage '{stage.name}'"):
                model.load(stage.name, self.states[stage.name])
        return self.ready(model, torch.device(device))

    def ready(self, model: Any, device: Any) -> Any:
        """The same object, its modules on the device and in evaluation mode."""
        with guarded(self.cell, "moving to its device"):
            for module in modules_of(model):
                module.to(device)
                module.eval()
        return model

    def keep(self, stage: str, state: State) -> None:
        """Write a state, and take what was written: later checks see what a run would."""
        from safetensors.torch import load_file, save_file

        folder = self.folder / self.model / stage
        folder.mkdir(parents=True, exist_ok=True)
        save_file(dict(state), folder / WEIGHTS)
        self.states[stage] = load_file(folder / WEIGHTS)

    def recall(self) -> None:
        """Take the states that an earlier process has kept."""
        from safetensors.torch import load_file

        for stage in self.stages:
            self.states[stage.name] = load_file(self.folder / self.model / stage.name / WEIGHTS)


_DATASET = DatasetSpec(
    name="synthetic",
    title="Synthetic",
    description="What the conformance kit draws.",
    reader="medbench.testing.corpus:Drawn",
)


def _task() -> TaskSpec:
    """A task of two labels on images, for prompts and messages."""
    return TaskSpec.model_validate(
        {
            "schema": "medbench.task/1",
            "name": "conformance",
            "title": "Conformance",
            "version": 1,
            "type": "classification",
            "dataset": "synthetic",
            "unit": "image",
            "description": "Made up by the conformance kit.",
            "modality": "X-ray",
            "region": "Chest",
            "labels": [
                {"name": "effusion", "text": "pleural effusion"},
                {"name": "edema", "text": "edema"},
            ],
            "adaptations": ["linear-probe", "zero-shot"],
            "metrics": ["auroc"],
            "primary": "auroc",
            "baselines": ["prior"],
            "protocols": {
                "clean": {"rule": "patient-kfold", "folds": 2, "seed": 0, "source": "made up"}
            },
        }
    )
