"""The network: `ReportNetwork.see` looks at the images of a study, `read` at words of its report.

No word that is to be predicted reaches an image: the images meet the start token alone, whose
state depends on nothing that follows, and words see earlier words only. So the images of a study
are looked at once, and words can be read one by one with what was computed for earlier ones kept.
With ``leaks`` it is as in the released code: words see all words and images see all words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from medbench.models.clip import build_clip, normalise
from medbench_unicrossadapter.adapters import ImageSite, TextSite
from medbench_unicrossadapter.attention import Cache, join_heads, split_heads
from medbench_unicrossadapter.config import UniCrossAdapterConfig
from medbench_unicrossadapter.neck import Neck
from medbench_unicrossadapter.standardise import Standardise
from medbench_unicrossadapter.transformer import DecoderLayer, EncoderLayer, grid_positions
from medbench_unicrossadapter.whiten import Whiten

#: Adapters of each encoder.
SITES = 3

#: The token that starts, ends and fills up a report.
START = 0


def text_sites(layers: int) -> tuple[int, int, int]:
    """Text blocks done at each site, evenly spread: 12 -> 4, 8, 12; 4 -> 2, 3, 4; 2 -> 1, 2, 2.

    With fewer than three blocks the last ones share a place, one adapter after the other.
    """
    first, second, third = (-(-layers * (site + 1) // SITES) for site in range(SITES))
    return first, second, third


@dataclass
class Seen:
    """What the images of B studies gave.

    Attributes:
        memory: float [B, 1 + V S, D], the encoder's tokens: one for the study, S for each view.
        mask: bool [B, 1, 1, 1 + V S], True where there is a view.
        bottlenecks: of each image adapter, float [B, V S, k]; none without interaction.
        stages: feature maps of the ResNet's stages 2 to 4, adapted, float [R, C, h, h], one for
            each of the R views that exist.
    """

    memory: torch.Tensor
    mask: torch.Tensor
    bottlenecks: list[torch.Tensor]
    stages: list[torch.Tensor]


class ReportNetwork(nn.Module):
    """CLIP, frozen but for its learnt positions, with adapters, neck, encoder and decoder.

    Args:
        config: dimensions.
        words: tokens of the vocabulary, `START` among them.
        clip: the CLIP; a random one when None.
    """

    def __init__(
        self, config: UniCrossAdapterConfig, words: int, clip: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.config = config
        width, grid = config.text_width, config.image_size // 16
        self.clip: Any = build_clip(config) if clip is None else clip
        self.image_sites = nn.ModuleList(
            ImageSite(config, i) for i in range(SITES if config.image_adapters else 0)
        )
        self.text_sites = nn.ModuleList(
            TextSite(config, i) for i in range(SITES if config.text_adapters else 0)
        )
        self.words = nn.Embedding(words, width)
        nn.init.normal_(self.words.weight, std=0.02)  # as CLIP's own
        # beside the attention pooling that is kept spatial
        channels = config.vision_width * 32
        self.shortcut = nn.Sequential(
            nn.Conv2d(channels, config.embed_dim, 1, bias=False), nn.BatchNorm2d(config.embed_dim)
        )
        self.neck = Neck(config)
        # stages 2 to 4: the channels double, the side halves
        first = config.vision_width * 8 * (2 * grid) ** 2
        self.whiten = nn.ModuleList(
            Whiten(config.views, first >> site, config.whiten)
            for site in range(SITES if config.whiten else 0)
        )
        values = width * grid * grid
        self.standardise = Standardise(config.views, values) if config.standardise else None
        self.study_token = nn.Parameter(torch.randn(width) * 0.02)
        self.register_buffer("positions", grid_positions(width, grid), persistent=False)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.encoder_norm = nn.LayerNorm(width)
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words)
        self._blocks_done = text_sites(config.text_layers)
        self.freeze()

    def freeze(self) -> None:
        """Nothing of CLIP is trained but positions (official code); byte pairs are CLIP's own."""
        self.clip.requires_grad_(False)
        self.clip.positional_embedding.requires_grad_(True)
        self.clip.visual.attnpool.positional_embedding.requires_grad_(True)
        self.words.requires_grad_(self.config.vocabulary == "words")

    def train(self, mode: bool = True) -> ReportNetwork:
        """As ever, but CLIP stays in evaluation mode: its BatchNorm is frozen with it."""
        super().train(mode)
        self.clip.eval()
        return self

    def trained(self) -> dict[str, torch.Tensor]:
        """The part of the state that training changes."""
        frozen = {f"clip.{name}" for name in self.clip.state_dict()}
        frozen -= {name for name, p in self.named_parameters() if p.requires_grad}
        return {name: value for name, value in self.state_dict().items() if name not in frozen}

    # --- images -----------------------------------------------------------------------------

    def see(
        self, images: torch.Tensor, mask: torch.Tensor, ids: torch.Tensor | None = None
    ) -> Seen:
        """Look at the images of studies.

        Args:
            images: float32 [B, V, 3, H, W] in [0, 1], H = W = ``config.image_size``.
            mask: bool [B, V], True where a view exists; at least one in each row.
            ids: int64 [B, T], words read so far, of which only the leaking form makes use.
        """
        return self.look(self.begin(images, mask), mask, ids)

    def begin(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Stem and first stage, which stand before all adapters: float [B, V, C, h, w]."""
        visual = self.clip.visual
        return place(visual.layer1(visual.stem(normalise(images[mask]))), mask)

    def look(
        self, begun: torch.Tensor, mask: torch.Tensor, ids: torch.Tensor | None = None
    ) -> Seen:
        """The rest of `see`, from what `begin` gave."""
        config, visual = self.config, self.clip.visual
        if ids is None or not config.leaks:
            ids = torch.full((len(mask), 1), START, device=mask.device)
        real = _real(ids)[:, None, None]  # [B, 1, 1, T]
        study = torch.arange(len(mask), device=mask.device)[:, None].expand_as(mask)[mask]  # [R]
        x = begun[mask].contiguous(memory_format=torch.channels_last)  # [R, C, h, w]
        words, cache = self._embed(ids, 0), Cache()
        image = text = None
        maps: list[torch.Tensor] = []
        bottlenecks: list[torch.Tensor] = []
        for site, stage in enumerate((visual.layer2, visual.layer3, visual.layer4)):
            x = stage(x)
            words = self._blocks(site, words, cache)
            seen = self._image_site(site).narrow(x, image) if self.image_sites else None
            told = self._text_site(site).narrow(words, text) if self.text_sites else None
            if seen is not None:
                adapter = self._image_site(site).interaction
                other = adapter.cross.keys(told) if config.crosses and told is not None else None
                if other is not None:
                    other = other[0][study], other[1][study]
                    bottlenecks.append(_by_study(seen, mask))
                image = adapter(seen, adapter.own.keys(seen), other, other_mask=real[study])
                x = x + self._image_site(site).widen(image)
            if told is not None:
                words, text = self._interact(site, words, told, real, bottlenecks, mask, cache)
            maps.append(x)
        last = real[:, 0, 0].sum(1) - 1  # the last word, or the start token
        state = self.clip.ln_final(words)[torch.arange(len(last), device=last.device), last]
        view = (mask.cumsum(1) - 1)[mask]  # [R], which of its study's views
        white = maps
        if self.whiten:
            white = [whiten(x, view) for whiten, x in zip(self.whiten, maps, strict=True)]
        pooled = self._pool(white[2]) + self.shortcut(white[2])
        fused = self.neck(white[0], white[1], pooled, state[study])  # [R, D, grid, grid]
        if self.standardise is not None:
            fused = self.standardise(fused, view)
        tokens = fused.flatten(2).transpose(1, 2) + self.positions  # [R, S, D]
        memory = torch.cat(
            [self.study_token.to(tokens).expand(len(mask), 1, -1), _by_study(tokens, mask)], dim=1
        )
        there = F.pad(_token_mask(mask, tokens.shape[1]), (1, 0), value=True)
        for layer in self.encoder:
            memory = layer(memory, there)
        return Seen(self.encoder_norm(memory), there, bottlenecks, maps)

    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        """CLIP's attention pooling for every place: float [R, C, h, h] -> [R, E, h, h]."""
        pool = self.clip.visual.attnpool
        tokens = x.flatten(2).transpose(1, 2)  # [R, S, C]
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)
        tokens = tokens + pool.positional_embedding
        query, keys, values = (
            split_heads(project(tokens), pool.num_heads)
            for project in (pool.q_proj, pool.k_proj, pool.v_proj)
        )
        found = join_heads(F.scaled_dot_product_attention(query, keys, values))
        spatial: torch.Tensor = pool.c_proj(found)[:, 1:].transpose(1, 2)
        return spatial.reshape(len(x), -1, *x.shape[-2:])

    # --- words ------------------------------------------------------------------------------

    def read(
        self,
        ids: torch.Tensor,
        seen: Seen,
        cache: Cache | None = None,
        watch: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """What comes after each word: int64 [B K, T] -> logits float [B K, T, words].

        The rows of one study are K after K. With a ``cache``, T more words after those it has read
        (T = 1 after the first). ``watch``: see `DecoderLayer.forward`.
        """
        cache = Cache() if cache is None else cache
        words, text = self._embed(ids, cache.length), None
        real = _real(ids)[:, None, None]
        views = seen.mask[..., 1:]
        for site in range(SITES):
            words = self._blocks(site, words, cache)
            if self.text_sites:
                told = self._text_site(site).narrow(words, text)
                words, text = self._interact(
                    site, words, told, real, seen.bottlenecks, views, cache
                )
        x = self.clip.ln_final(words)
        for number, layer in enumerate(self.decoder):
            x = layer(x, seen.memory, seen.mask, cache, f"decoder {number}", watch)
        cache.length += ids.shape[1]
        logits: torch.Tensor = self.head(self.decoder_norm(x))
        return logits

    def _embed(self, ids: torch.Tensor, start: int) -> torch.Tensor:
        places = self.clip.positional_embedding[start : start + ids.shape[1]]
        words: torch.Tensor = self.words(ids) + places
        return words

    def _blocks(self, site: int, x: torch.Tensor, cache: Cache) -> torch.Tensor:
        """The frozen text blocks that stand before a site."""
        begin = self._blocks_done[site - 1] if site else 0
        for number in range(begin, self._blocks_done[site]):
            block = self.clip.transformer.resblocks[number]
            joint = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
            query, keys, values = (
                split_heads(part, block.attn.num_heads) for part in joint.chunk(3, dim=-1)
            )
            pair = cache.grow(f"block {number}", (keys, values))
            found = F.scaled_dot_product_attention(query, *pair, is_causal=x.shape[1] > 1)
            x = x + block.ls_1(block.attn.out_proj(join_heads(found)))
            x = x + block.ls_2(block.mlp(block.ln_2(x)))
        return x

    def _interact(
        self,
        site: int,
        words: torch.Tensor,
        told: torch.Tensor,
        real: torch.Tensor,
        bottlenecks: list[torch.Tensor],
        views: torch.Tensor,
        cache: Cache,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A text adapter: adapted words [B, T, D], and its bottleneck [B, T, k].

        ``views`` is bool [B, V], or [B, 1, 1, V S] by token."""
        adapter = self._text_site(site)
        inner, leaks = adapter.interaction, self.config.leaks
        other = other_mask = None
        if self.config.crosses:
            other = cache.once(f"adapter {site}", lambda: inner.cross.keys(bottlenecks[site]))
            tokens = bottlenecks[site].shape[1]
            other_mask = views if views.ndim == 4 else _token_mask(views, tokens // views.shape[1])
        text = inner(
            told,
            cache.grow(f"adapter {site}", inner.own.keys(told)),
            other,
            own_mask=real if leaks else None,
            other_mask=other_mask,
            causal=not leaks and told.shape[1] > 1,
        )
        return words + adapter.up(text), text

    def _image_site(self, site: int) -> ImageSite:
        module = self.image_sites[site]
        assert isinstance(module, ImageSite)
        return module

    def _text_site(self, site: int) -> TextSite:
        module = self.text_sites[site]
        assert isinstance(module, TextSite)
        return module


def _real(ids: torch.Tensor) -> torch.Tensor:
    """bool [B, T]: the start token and the words, not what fills up the row."""
    real = ids != START
    real[:, 0] = True
    return real


def place(rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What the R views that exist have, [R, ...] -> [B, V, ...], zeros for others."""
    whole = rows.new_zeros(*mask.shape, *rows.shape[1:])
    whole[mask] = rows
    return whole


def _by_study(rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Tokens [R, S, k] of the views that exist -> [B, V S, k]: a study's views side by side."""
    return place(rows, mask).flatten(1, 2)


def _token_mask(mask: torch.Tensor, tokens: int) -> torch.Tensor:
    """bool [B, V] -> [B, 1, 1, V S]."""
    return mask.repeat_interleave(tokens, dim=1)[:, None, None]
