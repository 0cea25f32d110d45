"""A plugin for a plugin API of the future."""

from medbench import ModelSpec, hookimpl


@hookimpl
def medbench_models():
    return [
        ModelSpec(
            name="from-the-future",
            title="F",
            description="d",
            cls="incompatible:Model",
            api=(99,),
        )
    ]
