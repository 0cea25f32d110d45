"""Discovery and quarantine, with real distributions on the path of a real subprocess."""

from __future__ import annotations

import pytest

from program import Medbench

BAD = ("broken_import", "incompatible", "raising_hook", "exits")


@pytest.fixture
def crowded(medbench: Medbench) -> Medbench:
    for package in (*BAD, "toy_model"):
        medbench.install(package)
    return medbench


def test_a_working_plugin_stands_beside_broken_ones(crowded: Medbench) -> None:
    ran = crowded("plugins", "list", "--json")
    assert ran.code == 0, ran.err
    status = {plugin["name"]: plugin["status"] for plugin in ran.json}
    assert status["toy_model"] == "ok"
    assert status["broken_import"] == status["raising_hook"] == status["exits"] == "broken"
    assert status["incompatible"] == "incompatible"
    assert status["medbench-core"] == status["medbench-radclip"] == "ok"
    models = {model["name"] for model in crowded("models", "list", "--json").json}
    assert {"toy", "radclip"} <= models
    assert not models & {"half-there", "from-the-future"}


def test_the_original_error_is_listed(crowded: Medbench) -> None:
    errors = {p["name"]: p["error"] for p in crowded("plugins", "list", "--json").json}
    assert "No module named 'a_library_that_is_not_installed'" in errors["broken_import"]
    assert "the dataset list is on fire" in errors["raising_hook"]
    assert "supports plugin API 99; this medbench speaks 1" in errors["incompatible"]
    assert "goodbye" in errors["exits"]
    shown = crowded("plugins", "show", "raising_hook", "--json").json
    assert "raising_hook.py" in shown["traceback"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("half-there", "the dataset list is on fire"),
        ("from-the-future", "speaks 1"),
        ("broken_import", "a_library_that_is_not_installed"),
    ],
)
def test_asking_for_a_quarantined_model_gives_its_error(
    crowded: Medbench, model: str, message: str
) -> None:
    ran = crowded("run", "-m", model, "-t", "covid-ct")
    assert ran.code == 4
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_no_plugins_leaves_third_parties_out(crowded: Medbench) -> None:
    for line in (("--no-plugins", "models", "list"), ("models", "list", "--no-plugins")):
        ran = crowded(*line, "--json")
        first_party = "adaptor baseline cls-clip open-clip radclip roentgen unicrossadapter"
        assert [m["name"] for m in ran.json] == first_party.split()
        assert "broken" not in ran.err
    status = {
        p["name"]: p["status"] for p in crowded("--no-plugins", "plugins", "list", "--json").json
    }
    assert status["toy_model"] == "disabled"


def test_a_name_that_is_taken_is_refused_to_the_second(medbench: Medbench) -> None:
    medbench.install("toy_model", **{'name="toy"': 'name="radclip"'})
    plugins = {p["name"]: p for p in medbench("plugins", "list", "--json").json}
    assert plugins["toy_model"]["status"] == "broken"
    assert "already contributed by plugin 'medbench-radclip'" in plugins["toy_model"]["error"]
    assert plugins["medbench-radclip"]["status"] == "ok"


def test_specs_are_validated_when_they_are_made() -> None:
    from medbench import ModelSpec, Variant

    good = {"name": "a-model", "title": "t", "description": "d", "cls": "package.module:Class"}
    ModelSpec(**good)
    bad = [
        {"name": "A Model"},
        {"cls": "package.module"},
        {"presets": {"huge": {}}},
        {"capabilities": ("encode_sounds",)},
        {"adaptation": "prompting"},
        {"api": ()},
        {"api": ("1",)},
        {"variants": (Variant(name="x", description=""), Variant(name="x", description=""))},
    ]
    for change in bad:
        with pytest.raises(ValueError, match="model"):
            ModelSpec(**(good | change))
