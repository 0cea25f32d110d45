"""A plugin that ends the whole process when it is asked for its models."""

import os

from medbench import hookimpl


@hookimpl
def medbench_models():
    print("goodbye, all of you", flush=True)
    os._exit(3)
