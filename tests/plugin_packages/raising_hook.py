"""A plugin whose model hook works and whose dataset hook raises."""

from medbench import ModelSpec, hookimpl


@hookimpl
def medbench_models():
    return [ModelSpec(name="half-there", title="H", description="d", cls="raising_hook:Model")]


@hookimpl
def medbench_datasets():
    raise RuntimeError("the dataset list is on fire")


@hookimpl
def medbench_run_started(run):
    raise RuntimeError("never called: the plugin is quarantined")
