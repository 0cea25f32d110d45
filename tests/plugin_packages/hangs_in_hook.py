"""A plugin that never says what its models are."""

import time

from medbench import hookimpl


@hookimpl
def medbench_models():
    time.sleep(3600)
