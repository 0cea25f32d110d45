"""Dimensions and budgets of the shared general-domain CLIP, by preset.

Plain values that import nothing, so that a plugin's spec can name them. Plugins that lay the same
values into their own configuration share one pre-trained base checkpoint.
"""

from __future__ import annotations

from typing import Any

#: Values of `medbench.models.clip.ClipConfig` and `medbench.models.base_clip.BaseClipConfig`.
#: ``tiny`` and ``small`` are chosen for their cost; ``paper`` is the published ViT-L/14.
GENERAL_CLIP: dict[str, dict[str, Any]] = {
    # 64 px, a ModifiedResNet of 1.4 M parameters: seconds per epoch on two CPU cores.
    "tiny": {
        "embed_dim": 128,
        "image_size": 64,
        "vision_layers": (1, 1, 1, 1),
        "vision_width": 16,
        "text_layers": 2,
        "text_width": 128,
        "text_heads": 4,
        "context": 77,
        "quick_gelu": False,
        "base_epochs": 2,
        "base_batch": 128,
        "base_lr": 5e-4,
    },
    # 128 px, a ModifiedResNet of 7 M parameters: minutes on one GPU.
    "small": {
        "embed_dim": 256,
        "image_size": 128,
        "vision_layers": (2, 2, 2, 2),
        "vision_width": 32,
        "text_layers": 4,
        "text_width": 256,
        "text_heads": 4,
        "context": 77,
        "quick_gelu": False,
        "base_epochs": 10,
        "base_batch": 256,
        "base_lr": 5e-4,
    },
    # openai/clip-vit-large-patch14; never trained here, always given with --weights.
    "paper": {
        "embed_dim": 768,
        "image_size": 224,
        "vision_layers": 24,
        "vision_width": 1024,
        "vision_patch": 14,
        "text_layers": 12,
        "text_width": 768,
        "text_heads": 12,
        "context": 77,
        "quick_gelu": True,
    },
}
