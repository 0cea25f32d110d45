"""The published classification head, trained on frozen features."""

from __future__ import annotations

from torch import nn


def two_layer_head(
    features: int, labels: int, hidden: int = 512, dropout: float = 0.1
) -> nn.Sequential:
    """float32 [B, ``features``] -> logits float32 [B, ``labels``].

    Dropout, a linear layer without bias, BatchNorm, ReLU, dropout, a linear layer. Source: facts
    about the released code: dropout 0.1, hidden width 512.
    """
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(features, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, labels),
    )
