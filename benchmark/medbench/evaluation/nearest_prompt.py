"""The real image whose report is nearest to a prompt: what looking up reaches without drawing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medbench.errors import DataError

#: Prompts whose similarities with all texts are held at once.
BLOCK = 256


def nearest_texts(prompts: Sequence[str], texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Row of the nearest text of each prompt, int64 [P]: by cosine of TF-IDF vectors of words (of
    one and two of them, counted on ``texts``); the first of equally near ones.

    Raises DataError: there is no text with a word in it.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    try:
        gallery = words.fit_transform(texts).T.tocsc()
    except ValueError as error:
        raise DataError(f"None of {len(texts)} texts has a word to be found by.") from error
    queries = words.transform(prompts)
    found = [
        np.asarray((queries[start : start + BLOCK] @ gallery).todense()).argmax(axis=1)
        for start in range(0, len(prompts), BLOCK)
    ]
    return np.concatenate(found).astype(np.int64)
