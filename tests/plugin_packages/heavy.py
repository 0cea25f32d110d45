"""A plugin that imports a heavy library where its models are only listed."""

import matplotlib  # noqa: F401

from medbench import ModelSpec, hookimpl


@hookimpl
def medbench_models():
    return [ModelSpec(name="heavy", title="H", description="d", cls="able_model:Able")]
