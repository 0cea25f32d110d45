"""The configuration of a model: preset, variant and ``--set``, laid over each other."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from medbench.errors import MedbenchError, PluginError, UsageError
from medbench.isolated import IsolatedSpec
from medbench.plugins import Plugin, load_reference
from medbench.schemas.specs import ModelSpec, Variant


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` pairs; a value is read as TOML (numbers, booleans, lists), else as a string.

    >>> parse_settings(["pairs.epochs=5", "adapter.readout=mean"])
    {'pairs.epochs': 5, 'adapter.readout': 'mean'}
    """
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(f"--set takes KEY=VALUE, not '{setting}'.")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        if key in values and values[key] != value:
            raise UsageError(f"--set gives '{key}' twice, as {values[key]!r} and {value!r}.")
        values[key] = value
    return values


def configure(
    spec: ModelSpec, plugin: Plugin, preset: str, variant: Variant | None, settings: dict[str, Any]
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Build the model's configuration.

    Returns:
        The configuration object (None when the model has none; of an isolated plugin, whose class
        is not imported here, its values), its values as JSON, and the values
        of the fields that the paper leaves open (marked ``assumed`` in the model's config).
    """
    if not spec.config:
        if settings:
            raise UsageError(f"Model '{spec.name}' has no configuration to --set.")
        return None, {}, {}
    if isinstance(spec, IsolatedSpec):
        from medbench.isolation.model import configure as asked

        values, assumed = asked(spec, preset, variant, settings)
        return values, values, assumed
    cls = load_reference(spec.config, plugin)
    if not (isinstance(cls, type) and issubclass(cls, BaseModel)):
        raise PluginError(f"'{spec.config}' of model '{spec.name}' is not a pydantic model class.")
    known = sorted(_keys(cls))
    for key in settings:
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.4)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise UsageError(
                f"Model '{spec.name}' has no setting '{key}'.{hint} `medbench models show "
                f"{spec.name}` lists them."
            )
    nested: dict[str, Any] = {}
    layers = (spec.presets.get(preset, {}), variant.config if variant else {}, settings)
    for layer in layers:
        for key, value in layer.items():
            place = nested
            *path, last = key.split(".")
            for name in path:
                place = place.setdefault(name, {})
            place[last] = value
    try:
        config = cls.model_validate(nested)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()
        )
        if settings:
            raise UsageError(f"--set does not fit model '{spec.name}': {problems}.") from error
        raise PluginError(
            f"Preset '{preset}' of model '{spec.name}' is not valid: {problems}."
        ) from error
    except MedbenchError:
        raise
    except Exception as error:
        raise PluginError(
            f"The configuration of model '{spec.name}' raised {type(error).__name__} at preset "
            f"'{preset}': {error}."
        ) from error
    values = config.model_dump(mode="json")
    return config, values, _assumed(cls, values)


def describe(cls: type[BaseModel], prefix: str = "") -> list[dict[str, Any]]:
    """Every setting of a configuration class: key, default, whether assumed, source."""
    found: list[dict[str, Any]] = []
    for name, field in cls.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += describe(inner, f"{prefix}{name}.")
            continue
        extra = field.json_schema_extra
        found.append(
            {
                "key": f"{prefix}{name}",
                "default": None if field.is_required() else field.get_default(),
                "assumed": bool(isinstance(extra, dict) and extra.get("assumed")),
                "source": field.description or "",
            }
        )
    return found


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key, as ``--set`` has them."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def differences(configs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What sets each of several configurations apart: ``KEY=VALUE`` of every setting in which not
    all agree, by key; the same keys for each, None where one lacks a setting.

    >>> differences([{"pairs": {"epochs": 5, "batch": 8}}, {"pairs": {"epochs": 9, "batch": 8}}])
    [['pairs.epochs=5'], ['pairs.epochs=9']]
    """
    settings = [flat(config) for config in configs]
    keys = sorted({key for each in settings for key in each})
    differ = [key for key in keys if len({str(each.get(key)) for each in settings}) > 1]
    return [[f"{key}={each.get(key)}" for key in differ] for each in settings]


def _keys(cls: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in cls.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _keys(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _assumed(cls: type[BaseModel], values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        extra = field.json_schema_extra
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            if isinstance(values.get(name), Mapping):
                found.update(_assumed(inner, values[name], f"{prefix}{name}."))
        elif isinstance(extra, dict) and extra.get("assumed"):
            found[f"{prefix}{name}"] = values[name]
    return found
