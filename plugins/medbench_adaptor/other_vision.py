"""Image encoders that the paper does not name, by their names in the libraries that have them."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from medbench.errors import UsageError, unknown_name
from medbench.models.capabilities import State
from medbench.models.clip import check_fit, clip_layout, is_image_key, strip_wrappers
from medbench.models.patches import tower_maps
from medbench.models.vision_encoder import VisionEncoder, standardise

#: What stands before the name of an open_clip architecture.
OPEN_CLIP = "open-clip:"

#: The classifiers of torchxrayvision that share one architecture.
DENSENET = "torchxrayvision:densenet121"


def other_vision(name: str) -> VisionEncoder:
    """``open-clip:ARCHITECTURE`` or ``torchxrayvision:densenet121``, untrained.

    Raises UsageError for another name.
    """
    if name.startswith(OPEN_CLIP):
        return OpenClipTower(name.removeprefix(OPEN_CLIP))
    if name == DENSENET:
        return XrayDenseNet()
    raise UsageError(
        f"There is no image encoder called '{name}'. Known: the paper's dinov2-b, dinov2-s and "
        f"resnet-ae, {DENSENET}, and any architecture of open_clip, such as {OPEN_CLIP}ViT-B-16."
    )


class OpenClipTower(VisionEncoder):
    """The image tower of any architecture that open_clip lists, with its projection.

    Pixels are normalised with the statistics that open_clip gives the tower.
    """

    def __init__(self, architecture: str) -> None:
        import open_clip  # takes seconds, so only here

        super().__init__()
        known = open_clip.list_models()
        if architecture not in known:
            raise unknown_name("open_clip architecture", architecture, known)
        whole: Any = open_clip.create_model(architecture, pretrained=None, load_weights=False)
        self.tower: Any = whole.visual
        self.dim = int(open_clip.get_model_config(architecture)["embed_dim"])
        size = self.tower.image_size
        self.image_size = int(size[0] if isinstance(size, (tuple, list)) else size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, 3, H, W] in [0, 1] -> projected features float32 [B, dim]."""
        features: torch.Tensor = self.tower(self._normalise(images))
        return features.float()

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The same images -> what `medbench.models.patches.tower_maps` gives."""
        return tower_maps(self.tower, self._normalise(images))

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        return standardise(images, self.tower.image_mean, self.tower.image_std)

    def load(self, state: State) -> None:
        """Load a CLIP of open_clip, OpenAI or Hugging Face, of which the image tower is taken.

        Raises WeightsError naming keys that do not fit.
        """
        given = {
            key.removeprefix("visual."): value
            for key, value in clip_layout(state).items()
            if is_image_key(key)
        }
        own = self.tower.state_dict()
        counters = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")}
        check_fit("open_clip's image tower", own, counters | given)
        self.tower.load_state_dict(counters | given)
        self.freeze()


class XrayDenseNet(VisionEncoder):
    """The DenseNet-121 of torchxrayvision's classifiers (Cohen et al., 2022), without its head.

    The vector is the spatial mean of the last map, 1,024 values. Pixels are one channel in
    [-1024, 1024].
    """

    def __init__(self) -> None:
        from torchxrayvision.models import DenseNet  # takes seconds, so only here

        super().__init__()
        self.dim, self.image_size = 1024, 224
        self.network: Any = DenseNet(weights=None).features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, 3, H, W] in [0, 1] -> float32 [B, 1024]."""
        return self.maps(images)[-1].mean(dim=(2, 3))

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The same images -> the last map, float32 [B, 1024, H / 32, W / 32]."""
        grey = images.mean(dim=1, keepdim=True) * 2048 - 1024
        return [F.relu(self.network(grey)).float()]

    def load(self, state: State) -> None:
        """Load a state dict of torchxrayvision's ``DenseNet``; its head is left out.

        Raises WeightsError naming keys that do not fit.
        """
        given = {
            key.removeprefix("features."): value
            for key, value in strip_wrappers(state).items()
            if not key.startswith("classifier.") and key != "op_threshs"
        }
        check_fit("torchxrayvision's DenseNet", self.network.state_dict(), given)
        self.network.load_state_dict(given)
        self.freeze()
