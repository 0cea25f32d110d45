"""A third-party plugin without training that can do every kind of task."""

from medbench import ModelSpec, hookimpl


@hookimpl
def medbench_models():
    return [
        ModelSpec(
            name="able",
            title="Able",
            description="A random convolution.",
            cls="able_model:Able",
            capabilities=(
                "encode_images",
                "encode_texts",
                "encode_patches",
                "generate_reports",
                "generate_images",
            ),
            adaptation="linear-probe",
            weights_data=(),
        )
    ]


class Able:
    image_size = 32
    temperature = 0.1

    def __init__(self):
        import torch

        self.layer = torch.nn.Conv2d(3, 8, 4, stride=4)

    def encode_patches(self, images):
        return self.layer(images)

    def encode_images(self, images):
        return self.layer(images).relu().mean((2, 3))

    def encode_texts(self, texts):
        import torch

        rows = [torch.Generator().manual_seed(len(text)) for text in texts]
        features = torch.stack([torch.randn(8, generator=row) for row in rows])
        return torch.nn.functional.normalize(features, dim=-1)

    def class_prompts(self, task):
        return [[label.text] for label in task.labels]

    def generate_reports(self, images, mask):
        views = mask.sum(1).tolist()
        return [f"{count} views. The heart is normal. No pneumothorax." for count in views]

    def generate_images(self, prompts, seeds):
        import torch

        made = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            generator = torch.Generator().manual_seed(seed + len(prompt))
            coarse = torch.rand(1, 1, 4, 4, generator=generator)
            made.append(torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear"))
        return torch.cat(made).expand(-1, 3, -1, -1)
