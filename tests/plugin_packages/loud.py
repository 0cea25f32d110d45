"""A plugin that prints when it is imported, when it is asked, and when it observes."""

import os

from medbench import ModelSpec, hookimpl

print("imported, hooray")
os.write(1, b"written to the descriptor\n")


@hookimpl
def medbench_models():
    print("asked, hooray")
    return [ModelSpec(name="loud", title="L", description="d", cls="toy_model:Toy")]


@hookimpl
def medbench_run_started(run):
    print("started, hooray")


@hookimpl
def medbench_run_finished(run, record):
    raise SystemExit("this observer leaves")
