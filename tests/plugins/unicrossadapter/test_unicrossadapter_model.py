"""The spec, published sizes, stages and checkpoints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from unicrossadapter_toys import fitted, make, toy_config, toy_views

from medbench.errors import WeightsError
from medbench.models.clip import count
from medbench_unicrossadapter import UNICROSSADAPTER
from medbench_unicrossadapter.config import UniCrossAdapterConfig
from medbench_unicrossadapter.model import UniCrossAdapter

State = dict[str, torch.Tensor]


# --- the spec ---------------------------------------------------------------------------------


def test_the_spec_imports_nothing_heavy() -> None:
    code = (
        "import sys, medbench_unicrossadapter; "
        "heavy = {'torch', 'pydantic', 'open_clip', 'numpy', 'transformers'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_presets_and_variants_are_valid() -> None:
    for preset, values in UNICROSSADAPTER.presets.items():
        for variant in (None, *UNICROSSADAPTER.variants):
            config = UniCrossAdapterConfig.model_validate(
                {**values, **(variant.config if variant else {})}
            )
            assert config.max_length - 1 <= config.context
            if preset == "paper" and variant is None:
                for name, field in UniCrossAdapterConfig.model_fields.items():
                    extra = field.json_schema_extra
                    assert isinstance(extra, dict), name
                    assert extra.get("assumed") or getattr(config, name) == extra["published"], name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_length": 79}, "78 positions"),
        ({"vision_layers": 24}, "four stages"),
        ({"adapter_heads": 5}, "multiple of adapter_heads"),
        ({"train_size": 200}, "less than image_size"),
        ({"depth": 3}, "Extra inputs"),
    ],
)
def test_impossible_configurations_are_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UniCrossAdapterConfig.model_validate(values)


# --- published sizes --------------------------------------------------------------------------

#: Bottleneck 64: two attentions, feed-forward 64-128-64, three LayerNorms.
BLOCK = 2 * 4 * (64 * 64 + 64) + (64 * 128 + 128 + 128 * 64 + 64) + 3 * 128


def paper(**values: object) -> UniCrossAdapter:
    with torch.device("meta"):
        return UniCrossAdapter(UniCrossAdapterConfig.model_validate(values))


def test_published_sizes_of_clip_and_adapters() -> None:
    network = paper().network
    assert count(network.clip.parameters()) == 119_688_033  # 119.7 M, RN101
    assert [count(s.interaction.parameters()) for s in network.image_sites] == [BLOCK] * 3
    assert [count(s.interaction.parameters()) for s in network.text_sites] == [BLOCK] * 3
    for site, channels, kernel in zip(
        network.image_sites, (512, 1024, 2048), (2, 1, 2), strict=True
    ):
        assert count(site.down.parameters()) == channels * 64 * kernel**2 + 64
        assert count(site.up.parameters()) == channels * 64 * kernel**2 + channels
        assert site.grid == 14
    for site in network.text_sites:
        assert count(site.down.parameters()) == 512 * 64 + 64
        assert count(site.up.parameters()) == 512 * 64 + 512
    adapters = (*network.image_sites.parameters(), *network.text_sites.parameters())
    assert count(adapters) == 1_945_856  # 1.6 % of CLIP
    assert network._blocks_done == (4, 8, 12)
    assert network.positions.shape == (196, 512)


@pytest.mark.parametrize(("variant", "layers"), [(None, 3), ("mimic", 6)])
def test_published_sizes_of_encoder_and_decoder(variant: str | None, layers: int) -> None:
    spec = UNICROSSADAPTER.variant(variant) if variant else None
    model = paper(**(spec.config if spec else {}))
    encoder = 4 * (512 * 512 + 512) + (2 * 512 * 2048 + 2048 + 512) + 2 * 1024
    decoder = encoder + 4 * (512 * 512 + 512) + 1024
    assert count(model.network.encoder.parameters()) == layers * encoder
    assert count(model.network.decoder.parameters()) == layers * decoder
    numbers = model.parameter_counts()
    frozen = 119_688_033 - 77 * 512 - 50 * 2048
    assert numbers["total"] - numbers["trainable"] == frozen


# --- stages -----------------------------------------------------------------------------------


def test_stages() -> None:
    base, reports = make().stages(None)
    assert (base.name, base.corpus, base.weights) == ("base", "scenes", "clip")
    assert (reports.name, reports.corpus, reports.needs) == ("reports", "task", ("base",))
    assert [s.name for s in make(general=False).stages(None)] == ["reports"]
    assert make().stages({}) == ()
    # the beam decides nothing that is trained, the length does
    assert make(beam=1, block_trigrams=True).stages(None)[1] == reports
    assert make(max_length=15).stages(None)[1] != reports


def test_random_clip_is_drawn_by_the_seed_and_kept(tmp_path: Path) -> None:
    one, _ = fitted(tmp_path / "a", general=False, epochs=1)
    two, _ = fitted(tmp_path / "b", general=False, epochs=1, seed=1)
    key = "clip.visual.layer2.0.conv1.weight"
    assert not torch.equal(one.state("reports")[key], two.state("reports")[key])
    other = make(5, general=False)
    other.load("reports", one.state("reports"))
    assert torch.equal(other.state("reports")[key], one.state("reports")[key])


# --- checkpoints ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> UniCrossAdapter:
    return fitted(tmp_path_factory.mktemp("trained"), epochs=2)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("stage", ["reports", "weights"])
def test_round_trip_of_state(trained: UniCrossAdapter, stage: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file(trained.state("reports"), tmp_path / "model.safetensors")
    model = make(seed=9)
    model.load(stage, load_file(tmp_path / "model.safetensors"))
    assert model.vocabulary.tokens == trained.vocabulary.tokens
    images, mask = toy_views()
    assert model.generate_reports(images, mask) == trained.generate_reports(images, mask)
    one, two = model.state("reports"), trained.state("reports")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def refusal(state: State, **values: object) -> str:
    model = UniCrossAdapter(toy_config(**values))
    before = {k: v.clone() for k, v in model.state("reports").items()}
    with pytest.raises(WeightsError) as refused:
        model.load("weights", state)
    after = model.state("reports")  # nothing of it was taken
    assert all(torch.equal(before[key], after[key]) for key in before)
    return str(refused.value)


def test_a_checkpoint_of_another_depth_is_refused(trained: UniCrossAdapter) -> None:
    message = refusal(trained.state("reports"), layers=2)
    assert "encoder has 1 layers, the configuration's 2" in message
    assert "@mimic" in message


def test_a_vocabulary_that_does_not_fit_is_refused(trained: UniCrossAdapter) -> None:
    state = trained.state("reports")
    other = make()
    other.vocabulary = type(other.vocabulary)("words", ["one", "two"])
    assert "4 tokens, but its words.weight has" in refusal(
        {**state, "vocabulary": other.vocabulary.to_tensor()}
    )
    assert "writes words, the configuration asks for bpe" in refusal(state, vocabulary="bpe")
    broken = {**state, "vocabulary": torch.zeros(3, dtype=torch.uint8)}
    assert "not a vocabulary" in refusal(broken)


def test_what_is_no_unicrossadapter_is_refused(trained: UniCrossAdapter) -> None:
    state = trained.state("reports")
    clip = {k.removeprefix("clip."): v for k, v in state.items() if k.startswith("clip.")}
    assert "no vocabulary" in refusal(clip)
    assert "of another shape" in refusal(state, bottleneck=8)
    without = {k: v for k, v in state.items() if k != "study_token"}
    assert "missing: study_token" in refusal(without)
    # an ablation is another network
    assert "unexpected" in refusal(state, text_adapters=False)
