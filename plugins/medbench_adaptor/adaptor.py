"""The Adaptor module: what is trained between two frozen encoders.

Source: arXiv 2401.01179, section 2.1, and facts about the released code (layers, heads, widths,
roles of the attention). Its parameter counts at the published widths are the paper's.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

#: ln(1 / 0.07), the initial logarithm of the scale (released code: 2.6592).
INITIAL_LOGIT_SCALE = math.log(1 / 0.07)


class CrossLayer(nn.Module):
    """One Transformer layer, post-LN, whose query comes from the other modality.

    Key, value and residual are one's own. With one token a modality, the softmax runs over a single
    key and is 1, so the other modality decides nothing: what the layer gives for an image is the
    same whatever text it is paired with. With the roles turned round (query and residual one's
    own, key and value the other's) each image would take its own text in, and matching pairs
    would be told by what was copied.

    Args:
        dim: width.
        heads: of the attention.
        hidden: width of the feed-forward part.
        dropout: on attention weights, behind attention, and twice in the feed-forward part.
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.attention_norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)
        self.output_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """float [B, 1, D] of the modality that is updated and of the other -> float [B, 1, D]."""
        attended, _ = self.attention(query=other, key=own, value=own, need_weights=False)
        x = self.attention_norm(own + self.dropout(attended))
        inner = self.contract(self.dropout(F.relu(self.expand(x))))
        out: torch.Tensor = self.output_norm(x + self.dropout(inner))
        return out


class Adaptor(nn.Module):
    """Two projections into one space, and layers that both modalities share.

    Args:
        vision_dim, text_dim: D of the frozen encoders' vectors.
        dim: width of the shared space.
        layers, heads, hidden, dropout: see `CrossLayer`.
    """

    def __init__(
        self,
        vision_dim: int,
        text_dim: int,
        dim: int,
        *,
        layers: int,
        heads: int,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.image_projection = nn.Linear(vision_dim, dim, bias=False)
        self.text_projection = nn.Linear(text_dim, dim, bias=False)
        self.layers = nn.ModuleList(CrossLayer(dim, heads, hidden, dropout) for _ in range(layers))
        self.logit_scale = nn.Parameter(torch.tensor(INITIAL_LOGIT_SCALE))

    def forward(
        self, images: torch.Tensor, texts: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Frozen vectors of pairs, float [B, Dv] and [B, Dt] -> both float [B, dim].

        In each layer the image is updated first, and the text meets the updated image.
        """
        image = _project(self.image_projection, images)
        text = _project(self.text_projection, texts)
        for layer in self.layers:
            image = layer(image, text)
            text = layer(text, image)
        return image[:, 0], text[:, 0]

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Frozen image vectors float [B, Dv] -> float [B, dim]: the layers as self-attention, which
        is what they are used as without a text. Equal to what `forward` gives."""
        return self._alone(_project(self.image_projection, images))

    def encode_texts(self, texts: torch.Tensor) -> torch.Tensor:
        """Likewise for text vectors, float [B, Dt] -> float [B, dim]."""
        return self._alone(_project(self.text_projection, texts))

    def _alone(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, x)
        return x[:, 0]


def _project(projection: nn.Module, vectors: torch.Tensor) -> torch.Tensor:
    """float [B, D] -> directions in the shared space as sequences of one, float [B, 1, dim]."""
    return F.normalize(projection(vectors), dim=-1).unsqueeze(1)


def pair_loss(
    images: torch.Tensor, texts: torch.Tensor, scale: float | torch.Tensor, image_weight: float
) -> torch.Tensor:
    """Contrastive loss of a batch of pairs (equations 2 to 4).

    Args:
        images, texts: float [B, D]; row i of one belongs to row i of the other. Normalised here.
        scale: 1 / temperature.
        image_weight: alpha, of the image-to-text term; the text-to-image term has 1 - alpha.

    Returns:
        A scalar, float32; log B for vectors that say nothing.
    """
    images = F.normalize(images.float(), dim=-1)
    texts = F.normalize(texts.float(), dim=-1)
    logits = scale * images @ texts.T  # [B, B]
    target = torch.arange(len(logits), device=logits.device)
    to_text = F.cross_entropy(logits, target)
    to_image = F.cross_entropy(logits.T, target)
    return image_weight * to_text + (1 - image_weight) * to_image
