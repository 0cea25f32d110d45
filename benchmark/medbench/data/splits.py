"""Dividing samples: whole patients, stratified by class, the same whatever the order of samples.

Where chance is needed, patients are ordered by a hash of seed and identifier, not by a random
generator: the order is the same in every version of every library, does not depend on who else is
in the dataset, and a smaller choice is always part of a larger one.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from medbench.data.samples import Sample
from medbench.errors import DataError
from medbench.schemas.task import Split

#: The fewest patients of a class that a fraction of the labels may leave.
FEWEST = 5

#: Where a sample stands that is in no fold: 0 and above are folds, tested once each.
TRAIN, VAL = -1, -2
_PARTS = {"train": TRAIN, "val": VAL, "test": 0}

Indices = npt.NDArray[np.int64]
Labels = npt.NDArray[np.float64]


def patients_of(samples: Iterable[Sample]) -> list[str]:
    """The patient of each sample; a sample without one is its own."""
    return [s.patient if s.patient is not None else f"sample:{s.id}" for s in samples]


def classes_of(y: Labels, names: Sequence[str]) -> list[str]:
    """What to stratify by: the rarest label that a sample has; "" if it has none.

    Args:
        y: float [N, L]: 1, 0, or NaN where not scored.
        names: of the labels, [L].
    """
    if not names:
        return [""] * len(y)
    present = y == 1
    rarest = np.argsort(present.sum(axis=0), kind="stable")
    ordered = present[:, rarest]
    first = ordered.argmax(axis=1)
    found = ordered.any(axis=1)
    return [names[rarest[k]] if any_ else "" for k, any_ in zip(first, found, strict=True)]


def divide(
    samples: Sequence[Sample],
    classes: Sequence[str],
    split: Split,
    left_out: Collection[str] = (),
) -> tuple[list[int], Indices]:
    """Divide samples as a task's protocol says.

    Args:
        samples: of the dataset.
        classes: of each sample, to stratify by.
        split: the rule and its numbers.
        left_out: patients that take no part.

    Returns:
        Indices of the samples that take part, in order; and for each of them its fold, or `TRAIN`
        or `VAL`: int64 [M]. With one test split it is fold 0.

    Raises:
        DataError: the rule needs a split that the dataset does not have; a part has no sample.
    """
    used = list(range(len(samples)))
    if split.views:
        used = [i for i in used if samples[i].view in split.views]
    if left_out:
        used = [i for i in used if samples[i].patient not in left_out]
    if split.test == 0 and split.rule != "patient-kfold":
        own = [samples[i].split for i in used]
        if None in own:
            raise DataError(
                f"{own.count(None):,} of {len(own):,} samples are in no split of the dataset's "
                "own, which this task's protocol divides by. Add the dataset's split tables to "
                "its folder."
            )
        if split.tested == "val":
            used = [i for i in used if samples[i].split != "test"]
            parts = {"train": TRAIN, "val": 0}
        else:
            parts = _PARTS
        place = np.array([parts[str(samples[i].split)] for i in used], np.int64)
    else:
        place = np.full(len(used), TRAIN, np.int64)
    chosen = [samples[i] for i in used]
    patients = patients_of(chosen)
    kinds = [classes[i] for i in used]
    if split.rule == "patient-kfold":
        place = kfold(patients, kinds, split.folds, split.seed)
    elif split.rule == "row-holdout":
        place = _rows(place, split)
    else:
        if split.test:
            place[_part(patients, kinds, split.test, split.seed)] = 0
        if split.val and not (place == VAL).any():
            train = np.flatnonzero(place == TRAIN)
            share = split.val / (1 - split.test)
            inner = _part(
                [patients[i] for i in train], [kinds[i] for i in train], share, split.seed
            )
            place[train[inner]] = VAL
    for name, part in _PARTS.items():
        needed = name != "val" or split.val > 0
        if needed and split.rule != "patient-kfold" and not (place == part).any():
            raise DataError(f"The division leaves no sample for {name}. Use more data.")
    return used, place


def _part(patients: Sequence[str], classes: Sequence[str], share: float, seed: int) -> Indices:
    """Samples of about ``share`` of the patients of each class, at least one of each."""
    taken: set[str] = set()
    for members in _ordered(patients, classes, seed).values():
        taken.update(members[: max(1, round(share * len(members)))])
    return np.array([i for i, patient in enumerate(patients) if patient in taken], np.int64)


def _rows(place: Indices, split: Split) -> Indices:
    """Shuffled rows, whoever's they are: what scikit-learn's ``train_test_split`` gives."""
    from sklearn.model_selection import train_test_split

    place = place.copy()
    train = np.flatnonzero(place == TRAIN)
    if split.test:
        train, rest = train_test_split(
            train, test_size=split.val + split.test, random_state=split.seed
        )
        share = split.val / (split.val + split.test)
        test, val = train_test_split(rest, test_size=share, random_state=split.seed)
        place[test] = 0
    else:
        train, val = train_test_split(train, test_size=split.val, random_state=split.seed)
    place[val] = VAL
    return place


def kfold(patients: Sequence[str], classes: Sequence[Hashable], folds: int, seed: int) -> Indices:
    """The rule ``patient-kfold``: stratified folds of whole patients.

    Args:
        patients: of each sample, [N].
        classes: of each sample, [N]. A patient with samples of several classes counts for the
            rarest of them.
        folds: number of folds, at least 2.
        seed: of the division.

    Returns:
        int64 [N] in [0, folds): the fold in which each sample is tested.

    Raises:
        DataError: a class has fewer patients than there are folds.
    """
    if folds < 2:
        raise ValueError(f"{folds} folds: at least 2 are needed")
    by_class = _ordered(patients, classes, seed)
    for name, members in by_class.items():
        if len(members) < folds:
            raise DataError(
                f"Class '{name}' has {len(members)} patients, too few for {folds} folds. Use more "
                "data (a larger --limit, or none) or a task with fewer folds."
            )
    fold: dict[str, int] = {}
    for members in by_class.values():
        for patient in members:  # dealt like cards, each class going on where the last one ended
            fold[patient] = len(fold) % folds
    return np.array([fold[patient] for patient in patients], np.int64)


def shared_patients(task: Iterable[Sample], corpus: Iterable[Sample]) -> list[str]:
    """Patients that are in both, sorted. Samples that name no patient are not compared."""
    return sorted({s.patient for s in task if s.patient} & {s.patient for s in corpus if s.patient})


def stratified_limit(
    samples: Sequence[Sample], classes: Sequence[Hashable], n: int, seed: int
) -> list[int]:
    """Indices of at most ``n`` samples in the proportions of their classes, ascending.

    Each class keeps at least one sample while ``n`` allows. Patients are taken one after the
    other, so at most one per class is cut.

    Raises:
        DataError: ``n`` is below 1.
    """
    if n < 1:
        raise DataError(f"A limit of {n} leaves no samples. Give 1 or more.")
    if n >= len(samples):
        return list(range(len(samples)))
    patients = patients_of(samples)
    members: dict[str, list[int]] = defaultdict(list)
    for index, patient in enumerate(patients):
        members[patient].append(index)
    queues = {
        name: [
            index
            for patient in group
            for index in sorted(members[patient], key=lambda i: _rank(seed, samples[i].id))
        ]
        for name, group in _ordered(patients, classes, seed).items()
    }
    quotas = _quotas({name: len(queue) for name, queue in queues.items()}, n)
    return sorted(index for name, queue in queues.items() for index in queue[: quotas[name]])


def fraction(
    patients: Sequence[str],
    classes: Sequence[Hashable],
    share: float,
    seed: int,
    fewest: int = FEWEST,
) -> Indices:
    """The samples of a share of each class's patients: for training with fewer labels.

    Nested: with one seed, the 1 % are part of the 10 %, which are part of the whole.

    Args:
        patients: of each sample, [N].
        classes: of each sample, [N]; see `kfold`.
        share: in (0, 1].
        seed: of the choice.
        fewest: patients of a class that must be left.

    Returns:
        Indices of the chosen samples, ascending, int64 [M].

    Raises:
        DataError: ``share`` is out of range, or leaves fewer patients of a class.
    """
    if not 0 < share <= 1:
        raise DataError(f"A fraction of {share:g} is outside (0, 1].")
    if share == 1:
        return np.arange(len(patients), dtype=np.int64)
    chosen: set[str] = set()
    for name, members in _ordered(patients, classes, seed).items():
        count = round(share * len(members))
        if count < fewest:
            raise DataError(
                f"A fraction of {share:g} leaves {count} of {len(members)} training patients of "
                f"class '{name}'; at least {fewest} are needed for a result that means anything. "
                "Use a larger fraction or more data."
            )
        chosen.update(members[:count])
    return np.array([i for i, patient in enumerate(patients) if patient in chosen], np.int64)


def _ordered(
    patients: Sequence[str], classes: Sequence[Hashable], seed: int
) -> dict[Hashable, list[str]]:
    """Class to its patients in the seed's order; the rarest class comes first."""
    if len(patients) != len(classes):
        raise ValueError(f"{len(patients)} patients and {len(classes)} classes")
    held: dict[str, set[Hashable]] = defaultdict(set)
    for patient, name in zip(patients, classes, strict=True):
        held[patient].add(name)
    sizes = Counter(name for names in held.values() for name in names)

    def rarity(name: Hashable) -> tuple[int, str]:
        return sizes[name], str(name)

    groups: dict[Hashable, list[str]] = {name: [] for name in sorted(sizes, key=rarity)}
    for patient, names in held.items():
        groups[min(names, key=rarity)].append(patient)
    return {
        name: sorted(group, key=lambda patient: _rank(seed, patient))
        for name, group in groups.items()
        if group
    }


def _rank(seed: int, name: str) -> tuple[bytes, str]:
    """A place in the seed's order; the name itself breaks the (never seen) tie."""
    data = f"{seed}\0{name}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).digest(), name


def _quotas(sizes: Mapping[Hashable, int], n: int) -> dict[Hashable, int]:
    """``n`` places by largest remainder; each class at least one if there are enough places."""
    total = sum(sizes.values())
    exact = {name: n * size / total for name, size in sizes.items()}
    least = 1 if n >= len(sizes) else 0
    quotas = {name: max(least, int(share)) for name, share in exact.items()}
    by_remainder = sorted(sizes, key=lambda name: (quotas[name] - exact[name], str(name)))
    while sum(quotas.values()) < n:
        for name in by_remainder:
            if quotas[name] < sizes[name] and sum(quotas.values()) < n:
                quotas[name] += 1
    while sum(quotas.values()) > n:  # the guaranteed places are taken from the largest classes
        largest = max(quotas, key=lambda name: (quotas[name], str(name)))
        quotas[largest] -= 1
    return quotas
