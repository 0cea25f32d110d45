"""A third party's generator of reports, which says how bright an image is, and a task it judges."""

from pathlib import Path

from medbench import ModelSpec, Stage, hookimpl


@hookimpl
def medbench_models():
    return [
        ModelSpec(
            name="toy-writer",
            title="Toy writer",
            description="Reports by brightness.",
            cls="toy_writer:Writer",
            capabilities=("generate_reports", "fit"),
        )
    ]


@hookimpl
def medbench_tasks():
    return [Path(__file__).parent / "toy-reports.toml"]


class Writer:
    image_size = 24

    def __init__(self):
        import torch

        self.seen = torch.zeros(1, dtype=torch.uint8)
        self.draw = torch.zeros(1)

    def stages(self, weights):
        return [Stage(name="learn", corpus="task", config={})]

    def fit(self, stage, corpus, run):
        import torch

        told = "\n".join(sample.id for sample in corpus.samples)
        self.seen = torch.tensor(list(told.encode()), dtype=torch.uint8)
        self.draw = torch.rand(1)
        run.warn("it has learnt nothing")

    def state(self, stage):
        return {"seen": self.seen, "draw": self.draw}

    def load(self, stage, state):
        self.seen, self.draw = state["seen"], state["draw"]

    def generate_reports(self, images, mask):
        assert images.shape[1:] == (1, 3, 24, 24)
        assert mask.all()
        assert len(self.seen) > 1
        levels = images.mean((1, 2, 3, 4)).tolist()
        return [f"Brightness {round(1e4 * level)}. No pneumothorax." for level in levels]
