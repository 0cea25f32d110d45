"""Models that break the contract, each in its own way."""

from medbench import ModelSpec, hookimpl

WAYS = ("nan", "short", "integers", "list", "raises")


@hookimpl
def medbench_models():
    return [
        ModelSpec(
            name=f"bad-{way}",
            title=way,
            description="breaks its contract",
            cls=f"bad_outputs:Bad{way.title()}",
            capabilities=("encode_images", "encode_volumes"),
            adaptation="linear-probe",
        )
        for way in WAYS
    ] + [
        ModelSpec(
            name="bad-missing",
            title="missing",
            description="declares what it does not have",
            cls="bad_outputs:BadNan",
            capabilities=("encode_volumes", "encode_texts"),
            adaptation="linear-probe",
        ),
        ModelSpec(
            name="bad-class",
            title="c",
            description="d",
            cls="bad_outputs:Nowhere",
            capabilities=("encode_volumes",),
            adaptation="linear-probe",
        ),
    ]


class Bad:
    image_size = 16

    def encode_images(self, images):
        return self.encode_volumes(images, None)

    def encode_volumes(self, slices, mask):
        import torch

        return torch.ones(len(slices), 4)


class BadNan(Bad):
    def encode_volumes(self, slices, mask):
        return super().encode_volumes(slices, mask) * float("nan")


class BadShort(Bad):
    def encode_volumes(self, slices, mask):
        return super().encode_volumes(slices, mask)[1:]


class BadIntegers(Bad):
    def encode_volumes(self, slices, mask):
        return super().encode_volumes(slices, mask).long()


class BadList(Bad):
    def encode_volumes(self, slices, mask):
        return [1.0, 2.0]


class BadRaises(Bad):
    def encode_volumes(self, slices, mask):
        raise IndexError("something inside the model")
