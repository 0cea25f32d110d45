"""Predictions with keys in place of ids: what of a run may be published, and how it is recognised.

Scores, masks and embeddings of phantoms may be shown to anybody once sample and patient ids are
replaced by `medbench.evaluation.predictions.sample_key`. Reports and images may not: their texts
are under licences that forbid derivatives or redistribution, whatever the pixels are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from medbench.evaluation.files import AnyPredictions
from medbench.evaluation.mask_predictions import MaskPredictions
from medbench.evaluation.predictions import ClassPredictions, sample_key
from medbench.evaluation.retrieval_predictions import Groups, RetrievalPredictions

#: Task types whose predictions on phantoms are published.
PUBLISHED = ("classification", "segmentation", "retrieval")

#: Tables that do not say whether their ids are keys.
Arrays = MaskPredictions | RetrievalPredictions


@dataclass(frozen=True)
class Recognised:
    """Predictions found beside a record.

    Attributes:
        table: with keys for ids where its type has keys, in the order of keys where it has ids.
        keyed: whether the file held keys already.
        sound: whether it has the hash in the record.
    """

    table: AnyPredictions
    keyed: bool
    sound: bool


def hashes(table: AnyPredictions, manifest_sha256: str) -> dict[str, str]:
    """What a record says of its predictions: ``predictions``, and ``published`` of masks and
    embeddings, whose own hash does not hold for their published form."""
    found = {"predictions": table.digest(manifest_sha256)}
    if isinstance(table, Arrays):
        found["published"] = keyed_digest(with_keys(table, manifest_sha256))
    return found


def recognise(
    table: AnyPredictions, manifest_sha256: str, stated: Mapping[str, str | None]
) -> Recognised:
    """Tell keys from ids and hold the content against the hashes that a record states.

    A table of masks or embeddings does not say whether its ids are keys: it holds keys when it
    has the hash of the published table as it is.
    """
    if isinstance(table, ClassPredictions):
        sound = table.digest(manifest_sha256) == stated.get("predictions")
        return Recognised(table.publishable(manifest_sha256), table.keyed, sound)
    if not isinstance(table, Arrays):
        sound = table.digest(manifest_sha256) == stated.get("predictions")
        return Recognised(table, False, sound)
    published = stated.get("published")
    if keyed_digest(table) == published:
        return Recognised(table, True, True)
    changed = with_keys(table, manifest_sha256)
    return Recognised(changed, False, keyed_digest(changed) == published)


def with_keys(table: Arrays, manifest_sha256: str) -> Arrays:
    """The same predictions under keys. Rows with ids are sorted by key; embeddings have none, and
    keep their order, by which two models' are matched."""
    if isinstance(table, RetrievalPredictions):
        owners = [sample_key(manifest_sha256, name) for name in table.image_patients]
        return replace(table, image_patients=owners)
    ids = [sample_key(manifest_sha256, name) for name in table.sample_ids]
    owners = [sample_key(manifest_sha256, name) for name in table.patients]
    changed = replace(table, sample_ids=ids, patients=owners)
    return changed.take(sorted(range(len(ids)), key=ids.__getitem__))


def keyed_digest(table: Arrays) -> str:
    """Hash of masks or embeddings under keys: the same before and after a file.

    The numbers of groups are not in it, only which rows share one: a reader numbers them anew.
    """
    state = hashlib.sha256()
    if isinstance(table, MaskPredictions):
        state.update(repr(table.reference.shape).encode())
        names = [f"{a} {b}" for a, b in zip(table.sample_ids, table.patients, strict=True)]
    else:
        state.update(repr((table.image.shape, table.text.shape)).encode())
        groups = _first_seen(np.concatenate([table.image_group, table.text_group])).tolist()
        owners = [*table.image_patients, *[""] * len(table.text)]
        names = [f"{group} {owner}" for group, owner in zip(groups, owners, strict=True)]
    rows = list(zip(names, table.content.astype("<f8"), strict=True))
    if isinstance(table, MaskPredictions):
        rows.sort(key=lambda row: row[0])  # masks may come in any order
    for name, content in rows:
        state.update(name.encode() + b"\n" + content.tobytes())
    return state.hexdigest()


def _first_seen(groups: Groups) -> Groups:
    """Groups numbered in the order in which they are first met."""
    number: dict[int, int] = {}
    return np.array([number.setdefault(g, len(number)) for g in groups.tolist()], np.int64)
