"""What reaches what: words and images, earlier and later words, one study and another."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from unicrossadapter_toys import make, stirred, toy_views

from medbench.models.clip import normalise
from medbench.models.tokenizer import tokenize
from medbench_unicrossadapter.attention import Attention, Cache
from medbench_unicrossadapter.network import ReportNetwork, Seen, text_sites

IDS = torch.tensor([[0, 5, 9, 3, 12, 7, 2, 4]]).repeat(5, 1)


@pytest.fixture(scope="module")
def network() -> ReportNetwork:
    """Untrained, but every adapter does something."""
    return stirred(make()).network


@pytest.fixture(scope="module")
def leaking() -> ReportNetwork:
    return stirred(make(leaks=True)).network


def looked(
    network: ReportNetwork, ids: torch.Tensor, studies: int = 5
) -> tuple[Seen, torch.Tensor]:
    with torch.no_grad():
        seen = network.see(*toy_views(studies), ids)
        return seen, network.read(ids, seen)


def images_of(seen: Seen) -> list[torch.Tensor]:
    return [seen.memory, *seen.bottlenecks, *seen.stages]


# --- causality --------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(place=st.integers(1, 7), word=st.integers(2, 17))
def test_a_later_word_changes_no_earlier_logit_and_no_image_feature(
    network: ReportNetwork, place: int, word: int
) -> None:
    changed = IDS.clone()
    changed[:, place] = word if word != int(IDS[0, place]) else 1
    seen, logits = looked(network, IDS)
    other, otherwise = looked(network, changed)
    assert torch.equal(logits[:, :place], otherwise[:, :place])
    assert not torch.equal(logits[:, place:], otherwise[:, place:])
    assert all(map(torch.equal, images_of(seen), images_of(other)))


def test_as_released_a_later_word_changes_earlier_logits_and_images(
    leaking: ReportNetwork,
) -> None:
    changed = IDS.clone()
    changed[:, -1] = 11
    seen, logits = looked(leaking, IDS)
    other, otherwise = looked(leaking, changed)
    assert not torch.allclose(logits[:, :-1], otherwise[:, :-1], atol=1e-3)
    assert not torch.allclose(seen.stages[0], other.stages[0], atol=1e-4)


@pytest.mark.parametrize("leaks", [False, True])
def test_what_fills_up_a_row_changes_nothing(leaks: bool) -> None:
    network = stirred(make(leaks=leaks)).network
    longer = F.pad(IDS, (0, 4))
    _, logits = looked(network, IDS)
    _, more = looked(network, longer)
    assert torch.allclose(logits, more[:, : IDS.shape[1]], atol=1e-4)


def test_images_and_words_reach_each_other(network: ReportNetwork) -> None:
    images, mask = toy_views()
    with torch.no_grad():
        seen = network.see(images, mask)
        other = network.see(images.flip(-1), mask)
        assert not torch.allclose(seen.memory, other.memory, atol=1e-3)
        # the words' own states change, before any decoder
        words = [read(network, IDS, each) for each in (seen, other)]
        assert not torch.allclose(*words, atol=1e-3)


def read(network: ReportNetwork, ids: torch.Tensor, seen: Seen) -> torch.Tensor:
    """Logits with the decoder's memory taken away: what comes through the text adapters."""
    blind = Seen(torch.zeros_like(seen.memory), seen.mask, seen.bottlenecks, seen.stages)
    return network.read(ids, blind)


def test_without_interaction_words_see_images_through_the_decoder_alone() -> None:
    network = stirred(make(interaction=False)).network
    images, mask = toy_views()
    with torch.no_grad():
        seen, other = network.see(images, mask), network.see(images.flip(-1), mask)
        assert torch.equal(read(network, IDS, seen), read(network, IDS, other))
        assert not torch.equal(network.read(IDS, seen), network.read(IDS, other))


# --- studies ----------------------------------------------------------------------------------


def test_studies_never_mix(network: ReportNetwork) -> None:
    images, mask = toy_views()
    others = images.clone()
    others[1:] = others[1:].flip(0)
    with torch.no_grad():
        seen, other = network.see(images, mask), network.see(others, mask)
        assert torch.equal(seen.memory[0], other.memory[0])
        assert torch.equal(network.read(IDS, seen)[0], network.read(IDS, other)[0])


@pytest.mark.parametrize("leaks", [False, True])
def test_order_and_size_of_a_batch_change_no_logit(leaks: bool) -> None:
    network = stirred(make(leaks=leaks)).network
    images, mask = toy_views()
    ids = IDS.clone()
    ids[2, 5:] = 0
    order = torch.tensor([3, 0, 4, 2, 1])
    with torch.no_grad():
        whole = network.read(ids, network.see(images, mask, ids))
        turned = network.read(ids[order], network.see(images[order], mask[order], ids[order]))
        assert torch.allclose(whole[order], turned, atol=1e-4)
        for i in range(5):
            views = int(mask[i].sum())  # alone, without the place of a view that is not there
            seen = network.see(images[i : i + 1, :views], mask[i : i + 1, :views], ids[i : i + 1])
            assert torch.allclose(whole[i], network.read(ids[i : i + 1], seen)[0], atol=1e-4)


def test_the_second_view_of_a_study_counts(network: ReportNetwork) -> None:
    images, mask = toy_views()
    alone = mask.clone()
    alone[0, 1] = False
    with torch.no_grad():
        both = network.read(IDS, network.see(images, mask))
        one = network.read(IDS, network.see(images, alone))
    assert not torch.allclose(both[0], one[0], atol=1e-3)
    assert torch.allclose(both[1:], one[1:], atol=1e-4)


# --- CLIP -------------------------------------------------------------------------------------


def test_adapters_leave_clip_as_it_is_at_first() -> None:
    network = make(vocabulary="bpe").network
    clip = network.clip
    images, mask = toy_views()
    with torch.no_grad():
        seen = network.see(images, mask)
        x = clip.visual.layer1(clip.visual.stem(normalise(images[mask])))
        for stage, ours in zip(
            (clip.visual.layer2, clip.visual.layer3, clip.visual.layer4), seen.stages, strict=True
        ):
            x = stage(x)
            assert torch.allclose(ours, x, atol=1e-5)
        # the attention pooling's own answer is a mean's; those of places share its weights
        tokens = tokenize(["a red ball", "two dogs"], 8)
        network.words = torch.nn.Embedding.from_pretrained(clip.token_embedding.weight)
        states = []
        network.decoder = torch.nn.ModuleList()
        network.decoder_norm = torch.nn.Identity()  # type: ignore[assignment]
        network.head = _Watch(states)  # type: ignore[assignment]
        # the end token's number is the row's own, not START: nothing is padding here
        network.read(tokens, network.see(images[:2], mask[:2]))
        expected = clip.token_embedding(tokens) + clip.positional_embedding[:8]
        expected = clip.ln_final(clip.transformer(expected, attn_mask=clip.attn_mask[:8, :8]))
    assert torch.allclose(states[0], expected, atol=1e-5)


class _Watch(torch.nn.Module):
    def __init__(self, states: list[torch.Tensor]) -> None:
        super().__init__()
        self.states = states

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.states.append(x)
        return x


def test_pooling_kept_spatial_is_clips_where_clip_pools() -> None:
    network = make().network
    pool = network.clip.visual.attnpool
    x = torch.randn(3, 8 * 32, 1, 1)
    with torch.no_grad():  # of a single place the mean is that place, but for its position
        pool.positional_embedding.copy_(pool.positional_embedding[:1].expand(2, -1))
        assert torch.allclose(network._pool(x)[:, :, 0, 0], pool(x), atol=1e-5)


def test_training_mode_leaves_clip_in_evaluation_mode(network: ReportNetwork) -> None:
    network.train()
    assert network.neck.training
    assert not network.clip.training
    assert not any(module.training for module in network.clip.modules())
    network.eval()


def test_sites_are_spread_evenly_over_text_blocks() -> None:
    assert text_sites(12) == (4, 8, 12)
    assert text_sites(4) == (2, 3, 4)
    assert text_sites(2) == (1, 2, 2)
    assert text_sites(1) == (1, 1, 1)


# --- attention --------------------------------------------------------------------------------


def test_attention_is_pytorchs() -> None:
    ours, theirs = (
        Attention(16, 4, 0.0).eval(),
        torch.nn.MultiheadAttention(16, 4, batch_first=True),
    )
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.pair.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.pair.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
        x, source = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
        there = torch.tensor([[True] * 5, [True, True, False, True, False]])
        expected, paid = theirs(x, source, source, key_padding_mask=~there)
        mask = there[:, None, None]
        pair = ours.keys(source)
        assert torch.allclose(ours(x, pair, mask), expected, atol=1e-6)
        assert torch.allclose(ours.weights(x, pair, mask), paid, atol=1e-6)
    assert sum(map(torch.numel, ours.parameters())) == sum(map(torch.numel, theirs.parameters()))


def test_words_read_one_by_one_give_what_all_at_once_give(network: ReportNetwork) -> None:
    seen, logits = looked(network, IDS)
    cache = Cache()
    with torch.no_grad():
        steps = [network.read(IDS[:, t : t + 1], seen, cache) for t in range(IDS.shape[1])]
    assert torch.allclose(torch.cat(steps, dim=1), logits, atol=1e-4)
