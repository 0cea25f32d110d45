"""A plugin that asks for a library of its own, and whose configuration does what it is told: it
crashes, hangs, or writes where it must not. Only ever imported by a worker."""

import ctypes
import os
import signal
import subprocess
import sys
import time

from pydantic import BaseModel, field_validator

from medbench import DataError, ModelSpec, Variant, hookimpl


@hookimpl
def medbench_models():
    return [
        ModelSpec(
            name="edge",
            title="Edge",
            description="Lives dangerously.",
            cls="edge_cases:Edge",
            config="edge_cases:Config",
            capabilities=("encode_images",),
            adaptation="linear-probe",
            weights_data=(),
            variants=(
                Variant(name="crashing", description="ends itself", config={"size": 13}),
                Variant(name="broken", description="is not valid", config={"size": "large"}),
            ),
        )
    ]


def _pipes():
    """Descriptors of the worker's pipes: reading, writing."""
    return map(int, sys.argv[-2:])


def _hangs_and_leaves_a_child():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(f"pid {os.getpid()}, child {child.pid}", flush=True)
    time.sleep(600)


DEEDS = {
    "exit": lambda: os._exit(7),
    "crash": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": _hangs_and_leaves_a_child,
    "garbage": lambda: os.write([*_pipes()][1], b"what a lovely day" * 10),
    "close": lambda: os.close([*_pipes()][1]),
    "raise": lambda: 1 / 0,
    "data": lambda: (_ for _ in ()).throw(DataError("this file is damaged")),
    "sys-exit": lambda: sys.exit(3),
}


class Config(BaseModel, extra="forbid"):
    size: int = 8
    deed: str = ""

    @field_validator("deed")
    @classmethod
    def _do(cls, value):
        if value:
            print(f"about to {value}")
            sys.stdout.flush()
            os.write(1, b"a line of C's\n")
            DEEDS[value]()
        return value


class Edge:
    def __init__(self, config):
        import torch

        self.image_size = 16
        self.crashes = config.size == 13
        self.layer = torch.nn.Linear(3 * 16 * 16, config.size)

    def encode_images(self, images):
        print("noise on stdout")
        if self.crashes:
            ctypes.string_at(0)
        return self.layer(images.flatten(1))

    def library(self):
        import conflict_lib

        return conflict_lib.VERSION

    def context(self):
        import torch

        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled(), str(kind)

    def modules(self):
        return sorted({name.partition(".")[0] for name in sys.modules})

    def echo(self, *values):
        return values

    def unsendable(self):
        return object()

    def fails(self):
        raise LookupError("nothing here")

    def fills_memory(self):
        import torch

        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
