"""What the harness itself contributes, through the hooks that anybody may use."""

from __future__ import annotations

from collections.abc import Sequence

from medbench.hookspecs import hookimpl
from medbench.metrics.cards import CLASSIFICATION
from medbench.schemas.specs import DatasetSpec, MetricSpec


@hookimpl
def medbench_datasets() -> Sequence[DatasetSpec]:
    return [
        DatasetSpec(
            name="covid-ct-md",
            title="COVID-CT-MD",
            description="Chest CT of 305 patients: 169 COVID-19, 60 community-acquired pneumonia, "
            "76 normal. Three folders of subjects, one DICOM series each.",
            reader="medbench.data.covid_ct_md:CovidCtMd",
            phantom="medbench.phantom.layouts.covid_ct_md:write",
            unit="volume",
            access="open, on Figshare: COVID-CT-MD",
            licence="as stated on Figshare; to be verified by the user",
            homepage="https://doi.org/10.1038/s41597-021-00900-3",
        ),
        DatasetSpec(
            name="image-text-pairs",
            title="Image-text pairs",
            description="Any CSV or Parquet table of image path, text, optional patient and split. "
            "Its phantom is RadCLIP's pre-training corpus: many anatomies and modalities.",
            reader="medbench.data.image_text_pairs:ImageTextPairs",
            phantom="medbench.phantom.layouts.image_text_pairs:write",
            unit="pair",
            access="your own",
        ),
        DatasetSpec(
            name="scenes",
            title="Scenes",
            description="Procedurally drawn coloured everyday scenes with captions: the general "
            "domain of the phantom world, on which base models are pre-trained.",
            reader="medbench.data.image_text_pairs:ImageTextPairs",
            phantom="medbench.phantom.layouts.scenes:write",
            unit="pair",
            access="rendered here",
            licence="Apache-2.0",
        ),
    ]


@hookimpl
def medbench_metrics() -> Sequence[MetricSpec]:
    return list(CLASSIFICATION)
