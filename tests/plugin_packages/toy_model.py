"""A small third-party plugin that trains: one linear layer over thumbnails, with a real fit."""

import time

from medbench import ModelSpec, Stage, Variant, hookimpl

PAUSE = 0.0
EPOCHS = 6
STEPS = 4


@hookimpl
def medbench_models():
    return [
        ModelSpec(
            name="toy",
            title="Toy",
            description="Random projection of slices, refined by a few steps.",
            cls="toy_model:Toy",
            capabilities=("encode_images", "encode_texts", "encode_volumes", "fit"),
            adaptation="linear-probe",
            pretraining=("image-text-pairs",),
            variants=(Variant(name="plain", description="the same"),),
        )
    ]


class Toy:
    image_size = 16
    temperature = 0.1

    def __init__(self):
        import torch

        self.layer = torch.nn.Linear(16 * 16, 8)
        self.drop = torch.nn.Dropout(0.2)

    def stages(self, weights):
        return [Stage(name="fit", corpus="image-text-pairs", config={"epochs": EPOCHS})]

    def fit(self, stage, corpus, run):
        import torch

        from medbench.data.images import Images

        samples = [s for s in corpus.samples if s.kind == "image"][:32]
        images = Images(corpus.reader, samples, self.image_size)
        batch = images.batch(range(len(samples))).to(run.device)
        optimiser = torch.optim.AdamW(self.layer.parameters(), lr=1e-2)
        for _ in run.epochs(EPOCHS, self.layer, optimiser):
            self.layer.train()
            for step in range(STEPS):
                loss = self.drop(self.encode_images(batch)).square().mean() + torch.rand(1).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                run.advance(step + 1, STEPS, loss=float(loss))
            time.sleep(PAUSE)

    def state(self, stage):
        return self.layer.state_dict()

    def load(self, stage, state):
        self.layer.load_state_dict(state)

    def encode_images(self, images):
        return self.layer(images.mean(1).flatten(1))

    def encode_volumes(self, slices, mask):
        flat = self.encode_images(slices.flatten(0, 1)).view(*slices.shape[:2], -1)
        return (flat * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def encode_texts(self, texts):
        import torch

        generator = torch.Generator().manual_seed(sum(map(len, texts)))
        return torch.nn.functional.normalize(torch.randn(len(texts), 8, generator=generator))

    def class_prompts(self, task):
        return [[label.text] for label in task.labels]
