"""A plugin that leaves by SystemExit when it is asked for its models."""

from medbench import hookimpl


@hookimpl
def medbench_models():
    raise SystemExit("no models for you")
