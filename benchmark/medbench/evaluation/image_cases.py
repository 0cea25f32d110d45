"""Which prompts are shown with what was drawn for them: some of each finding, drawn blindly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medbench.evaluation.image_predictions import ImagePredictions

EACH = 2  #: prompts of each finding
OTHERS = 2  #: other real images beside a prompt's own
STRIPS = 4  #: prompts whose way from noise to image is kept
SEED = 0
NONE = "none of these findings"
ANY = "any"  #: where a table has no labels


def own_prompts(table: ImagePredictions) -> npt.NDArray[np.int64]:
    """int [N], the prompt that each real image belongs to; where a table does not say, its row."""
    return np.arange(table.reals) if table.real_prompts is None else table.real_prompts


def prompts(table: ImagePredictions, each: int = EACH) -> dict[str, list[int]]:
    """Finding to the prompts that are shown for it, by the rows of their real images; a patient is
    there once. Only prompts that an image was generated from.

    The choice knows labels alone, so it is the same for every model on the same samples: prompts
    of just that finding first, in a seeded order. `NONE` stands last: prompts of no finding. A
    finding that no other prompt is left for is not there.
    """
    if table.prompts is None:
        return {}
    drawn = np.isin(own_prompts(table), table.prompts)
    owners, used = _owners(table), set[str]()
    kinds = (ANY,) if table.real_labels is None else (*table.label_names, NONE)
    found: dict[str, list[int]] = {}
    for kind in kinds:
        rows = [row for row in _order(table) if drawn[row] and _has(table, kind, row)]
        if table.real_labels is not None:
            present = (table.real_labels == 1).sum(axis=1).tolist()
            rows.sort(key=lambda row: present[row] > 1)
        for row in rows:
            most = 3 * each if kind == ANY else each
            if owners[row] not in used and len(found.get(kind, ())) < most:
                used.add(owners[row])
                found.setdefault(kind, []).append(row)
    return found


def others(table: ImagePredictions, finding: str, row: int) -> list[int]:
    """Real images of other patients with the finding of `prompts`: rows, at most `OTHERS`."""
    owners = _owners(table)
    order = _order(table)[::-1]  # from the end, where prompts are not taken from
    found = [o for o in order if owners[o] != owners[row] and _has(table, finding, o)]
    return found[:OTHERS]


def first_images(table: ImagePredictions) -> list[int]:
    """Rows of ``table.generated``: the first image of the first prompt of each finding, at most
    `STRIPS` of them; none where images have no prompts."""
    if table.prompts is None:
        return []
    asked, own = table.prompts.tolist(), own_prompts(table).tolist()
    return [asked.index(own[rows[0]]) for rows in prompts(table).values()][:STRIPS]


def _owners(table: ImagePredictions) -> Sequence[str]:
    return table.real_patients or [str(i) for i in range(table.reals)]


def _order(table: ImagePredictions) -> list[int]:
    order: list[int] = np.random.default_rng(SEED).permutation(table.reals).tolist()
    return order


def _has(table: ImagePredictions, finding: str, row: int) -> bool:
    if table.real_labels is None or finding == ANY:
        return True
    if finding == NONE:
        return bool((table.real_labels[row] == 0).all())
    return bool(table.real_labels[row, table.label_names.index(finding)] == 1)
