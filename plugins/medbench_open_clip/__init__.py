"""Any open_clip model, or a CLIP in transformers' layout, as a medbench plugin: its spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medbench import ModelSpec, hookimpl
from medbench.models.presets import GENERAL_CLIP
from medbench_open_clip.files import FILES


def _base(preset: str) -> Mapping[str, Any]:
    values = GENERAL_CLIP[preset]
    return {"model": "base", **{f"base.{key}": value for key, value in values.items()}}


OPEN_CLIP = ModelSpec(
    name="open-clip",
    title="open_clip",
    description="CLIP, CoCa, SigLIP, BiomedCLIP, PMC-CLIP or another contrastive model, run as it "
    "was published; on phantoms the shared general-domain CLIP.",
    cls="medbench_open_clip.model:OpenClip",
    config="medbench_open_clip.config:OpenClipConfig",
    presets={"tiny": _base("tiny"), "small": _base("small"), "paper": {"model": "auto"}},
    needs_weights=("paper",),
    weight_files=FILES,
    capabilities=("encode_images", "encode_texts", "encode_patches", "fit"),
    adaptation="linear-probe",
    pretraining=("scenes", "image-text-pairs"),
    paper="Ilharco et al., OpenCLIP, 2021, doi:10.5281/zenodo.5143773; and the model's own paper",
    licence="Apache-2.0 (this implementation); published weights under their own terms",
)


@hookimpl
def medbench_models() -> Sequence[ModelSpec]:
    return [OPEN_CLIP]
