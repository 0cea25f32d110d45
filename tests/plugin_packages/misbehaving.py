"""Models of which each does one thing that a plugin must not do, and a good one.

None of them takes long, and all but the one thing is as it should be.
"""

import os
import random
import sys
import time

from medbench import ModelSpec, Stage, hookimpl

#: Each has a class of its name, which says what is wrong.
WAYS = (
    "well-behaved",
    "raises-in-fit",
    "exits-in-fit",
    "hangs-in-fit",
    "loss-rises",
    "unseeded-fit",
    "undeclared-corpus",
    "settings-in-state",
    "pickle-in-state",
    "forgets-a-layer",
    "unlike-weights",
    "no-image-size",
    "nan",
    "wrong-count",
    "wrong-dtype",
    "not-normalised",
    "other-space",
    "out-of-range",
    "mutates-its-input",
    "moves-a-buffer",
    "draws-globally",
    "random-answers",
    "sees-the-batch",
    "sees-padding",
    "keeps-its-inputs",
    "exits",
    "exits-the-process",
    "hangs",
    "prints",
    "stays-on-the-cpu",
)


@hookimpl
def medbench_models():
    return [
        ModelSpec(
            name=f"mis-{way}",
            title=way,
            description="does one thing that it must not",
            cls=f"misbehaving:{way.title().replace('-', '')}",
            capabilities=(
                "encode_images",
                "encode_texts",
                "encode_volumes",
                "generate_images",
                "fit",
            ),
            adaptation="linear-probe",
            pretraining=("image-text-pairs",),
        )
        for way in WAYS
    ]


class WellBehaved:
    image_size = 16
    temperature = 0.1

    def __init__(self):
        import torch

        self.layer = torch.nn.Linear(16 * 16, 8)
        self.tower = torch.nn.BatchNorm1d(8)

    def stages(self, weights):
        return [Stage(name="own", corpus="image-text-pairs", config={"epochs": 3})]

    def fit(self, stage, corpus, run):
        import torch

        optimiser = torch.optim.SGD(self.layer.parameters(), lr=0.05)
        for _ in run.epochs(3, self.layer, self.tower, optimiser):
            for step in range(3):
                images = torch.rand(8, 3, 16, 16)
                loss = self._features(images).square().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                run.advance(step + 1, 3, loss=float(loss))

    def state(self, stage):
        parts = {"layer": self.layer, "tower": self.tower}
        return {f"{p}.{k}": v for p, m in parts.items() for k, v in m.state_dict().items()}

    def load(self, stage, state):
        for name, module in (("layer", self.layer), ("tower", self.tower)):
            own = {k.partition(".")[2]: v for k, v in state.items() if k.startswith(f"{name}.")}
            module.load_state_dict(own)

    def _features(self, images):
        return self.layer(images.mean(1).flatten(1))

    def encode_images(self, images):
        return self.tower(self._features(images))

    def encode_volumes(self, slices, mask):
        flat = self.encode_images(slices.flatten(0, 1)).view(*slices.shape[:2], -1)
        return (flat * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def encode_texts(self, texts):
        import torch

        rows = [torch.Generator().manual_seed(sum(map(ord, text))) for text in texts]
        drawn = torch.stack([torch.randn(8, generator=row) for row in rows])
        return torch.nn.functional.normalize(drawn, dim=-1)

    def class_prompts(self, task):
        return [[label.text] for label in task.labels]

    def generate_images(self, prompts, seeds):
        import torch

        rows = [torch.Generator().manual_seed(seed) for seed in seeds]
        return torch.stack([torch.rand(3, 16, 16, generator=row) for row in rows])


class RaisesInFit(WellBehaved):
    def fit(self, stage, corpus, run):
        raise ZeroDivisionError("the scheduler divides by nothing")


class ExitsInFit(WellBehaved):
    def fit(self, stage, corpus, run):
        sys.exit("fit has had enough")


class HangsInFit(WellBehaved):
    def fit(self, stage, corpus, run):
        time.sleep(3600)


class LossRises(WellBehaved):
    def fit(self, stage, corpus, run):
        for epoch in run.epochs(3, self.layer):
            for step in range(3):
                run.advance(step + 1, 3, loss=1.0 + epoch)


class UnseededFit(WellBehaved):
    def fit(self, stage, corpus, run):
        import torch

        super().fit(stage, corpus, run)
        with torch.no_grad():
            self.layer.bias += random.SystemRandom().random()


class UndeclaredCorpus(WellBehaved):
    def stages(self, weights):
        return [Stage(name="own", corpus="mimic-cxr", config={})]


class SettingsInState(WellBehaved):
    def state(self, stage):
        return {**super().state(stage), "settings": {"epochs": 3}}


class PickleInState(WellBehaved):
    def state(self, stage):
        import pickle

        import torch

        hidden = torch.tensor(list(pickle.dumps({"epochs": 3})), dtype=torch.uint8)
        return {**super().state(stage), "settings": hidden}


class ForgetsALayer(WellBehaved):
    def fit(self, stage, corpus, run):
        super().fit(stage, corpus, run)
        self.tower.weight.data += 1

    def state(self, stage):
        return self.layer.state_dict()

    def load(self, stage, state):
        self.layer.load_state_dict(state)


class UnlikeWeights(WellBehaved):
    def __init__(self):
        super().__init__()
        self.layer.bias.data += random.SystemRandom().random()


class NoImageSize(WellBehaved):
    image_size = "16"


class Nan(WellBehaved):
    def encode_images(self, images):
        return super().encode_images(images) * float("nan")


class WrongCount(WellBehaved):
    def encode_images(self, images):
        return super().encode_images(images)[1:]


class WrongDtype(WellBehaved):
    def encode_images(self, images):
        return super().encode_images(images).long()


class NotNormalised(WellBehaved):
    def encode_texts(self, texts):
        return 3 * super().encode_texts(texts)


class OtherSpace(WellBehaved):
    def encode_texts(self, texts):
        import torch

        return torch.nn.functional.normalize(super().encode_texts(texts)[:, :5], dim=-1)


class OutOfRange(WellBehaved):
    def generate_images(self, prompts, seeds):
        return 255 * super().generate_images(prompts, seeds)


class MutatesItsInput(WellBehaved):
    def encode_images(self, images):
        return super().encode_images(images.sub_(0.5).div_(0.25))

    def encode_volumes(self, slices, mask):
        return super().encode_volumes(slices.clone(), mask)


class MovesABuffer(WellBehaved):
    def encode_images(self, images):
        self.tower.num_batches_tracked += 1
        return super().encode_images(images)


class DrawsGlobally(WellBehaved):
    def encode_images(self, images):
        random.random()
        return super().encode_images(images)


class RandomAnswers(WellBehaved):
    def encode_images(self, images):
        found = super().encode_images(images)
        return found + 0.1 * found.new_empty(found.shape).normal_()


class SeesTheBatch(WellBehaved):
    def encode_images(self, images):
        found = super().encode_images(images)
        return found - found.mean(0)


class SeesPadding(WellBehaved):
    def encode_volumes(self, slices, mask):
        return self.encode_images(slices.flatten(0, 1)).view(*slices.shape[:2], -1).mean(1)


class KeepsItsInputs(WellBehaved):
    def __init__(self):
        super().__init__()
        self.kept = []

    def encode_images(self, images):
        self.kept.append(images)
        return super().encode_images(images)


class Exits(WellBehaved):
    def encode_volumes(self, slices, mask):
        sys.exit("encode_volumes has had enough")


class ExitsTheProcess(WellBehaved):
    def encode_images(self, images):
        os._exit(7)


class Hangs(WellBehaved):
    def encode_images(self, images):
        time.sleep(3600)


class Prints(WellBehaved):
    def fit(self, stage, corpus, run):
        print("fit says hello")
        os.write(1, b"fit writes to the descriptor\n")
        super().fit(stage, corpus, run)

    def encode_images(self, images):
        print("encode says hello")
        return super().encode_images(images)


class StaysOnTheCpu(WellBehaved):
    def __init__(self):
        import torch

        super().__init__()
        self.offset = torch.ones(8)

    def encode_images(self, images):
        return super().encode_images(images) + self.offset
