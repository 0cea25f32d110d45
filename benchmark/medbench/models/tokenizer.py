"""The byte-pair tokenizer of CLIP (Radford et al., 2021), on the Rust ``tokenizers`` library.

The vocabulary is the file that ships inside the installed ``open_clip`` wheel. It is found without
importing ``open_clip``, whose import takes seconds.
"""

from __future__ import annotations

import gzip
import html
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import ftfy
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from medbench.errors import DataError

VOCABULARY = 49408  #: 256 bytes, 256 word-final bytes, 48,894 merges, start and end of text
START = 49406
END = 49407

_MERGES = 49152 - 256 - 2
#: Contractions, runs of letters, single digits, runs of anything else: CLIP's word pattern.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def vocabulary_file() -> Path:
    """``bpe_simple_vocab_16e6.txt.gz`` of the installed ``open_clip``.

    Raises DataError when the package or the file is not there.
    """
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise DataError(
            "The CLIP vocabulary is read from the package open_clip_torch, which is not "
            "installed. Install it with: pip install open_clip_torch."
        )
    path = Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz"
    if not path.is_file():
        raise DataError(f"The CLIP vocabulary {path} is missing. Reinstall open_clip_torch.")
    return path


@cache
def _tokenizer() -> Tokenizer:
    lines = gzip.decompress(vocabulary_file().read_bytes()).decode("utf-8").split("\n")
    merges = [(left, right) for left, right in map(str.split, lines[1 : _MERGES + 1])]
    # The byte alphabet in code-point order is CLIP's order: printable bytes, then the others.
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*characters, *(c + "</w>" for c in characters), *(a + b for a, b in merges)]
    model = models.BPE(
        vocab={word: number for number, word in enumerate(words)},
        merges=merges,
        end_of_word_suffix="</w>",
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def clean(text: str) -> str:
    """Repair mis-decoded characters, resolve HTML entities, collapse white space, lower-case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def tokenize(texts: Sequence[str], context: int = 77) -> torch.Tensor:
    """Token ids, int64 [B, context]: start, text, end, then zeros.

    A text longer than ``context`` is cut and still closed by the end token, which is where the
    text tower reads its feature. The words ``<start_of_text>`` and ``<end_of_text>`` inside a text
    are spelled out like any others: no text can place an end token.
    """
    if isinstance(texts, str):
        raise TypeError("texts is one string, not a sequence of strings")
    if context < 2:
        raise ValueError(f"context is {context}; start and end alone take 2")
    result = torch.zeros(len(texts), context, dtype=torch.long)
    for row, encoding in enumerate(_tokenizer().encode_batch([clean(t) for t in texts])):
        ids = [START, *encoding.ids[: context - 2], END]
        result[row, : len(ids)] = torch.tensor(ids)
    return result
