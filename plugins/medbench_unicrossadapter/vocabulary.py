"""Reports as token numbers and back: words of R2Gen's reading, or CLIP's byte pairs of them."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import Literal

import torch
from tokenizers import decoders, pre_tokenizers

from medbench.errors import WeightsError
from medbench.metrics.captioning import r2gen_words
from medbench.models.tokenizer import END, START, tokenize, vocabulary_file

Kind = Literal["words", "bpe"]

#: Tokens of the longest text that is taken apart; reports have some hundred.
_LONGEST = 4096
#: What ends the last piece of a word in CLIP's byte pairs.
_END_OF_WORD = "</w>"


class Vocabulary:
    """Tokens and their numbers: 0 starts, ends and fills up a report, 1 is any unknown token.

    Args:
        kind: "words" as `medbench.metrics.captioning.r2gen_words` reads a report, or "bpe": the
            pieces that CLIP's tokenizer makes of these words. It has no blanks: digits and hyphens
            come back as words of their own ("t 1 1" for "t11").
        tokens: from number 2 on, all different.
    """

    def __init__(self, kind: Kind, tokens: Sequence[str]) -> None:
        self.kind = kind
        self.tokens = tuple(tokens)
        self._numbers = {token: number for number, token in enumerate(self.tokens, start=2)}

    def __len__(self) -> int:
        return len(self.tokens) + 2

    @classmethod
    def of(cls, kind: Kind, reports: Sequence[str], min_frequency: int) -> Vocabulary:
        """Tokens that occur at least so often in the reports, in the order of the alphabet."""
        counts = Counter(chain.from_iterable(map(_splitter(kind), reports)))
        return cls(kind, sorted(token for token, n in counts.items() if n >= min_frequency))

    def encode(self, report: str) -> list[int]:
        """Numbers of a report's tokens, without a start or an end."""
        return [self._numbers.get(token, 1) for token in _splitter(self.kind)(report)]

    def words(self, numbers: Sequence[int]) -> list[str]:
        """Words of token numbers (of 2 or more)."""
        tokens = [self.tokens[number - 2] for number in numbers]
        if self.kind == "words":
            return tokens
        joined = "".join(tokens).split(_END_OF_WORD)
        decoder = decoders.ByteLevel()
        return [decoder.decode([word]) for word in joined if word]

    def decode(self, numbers: Sequence[int]) -> str:
        """A report of token numbers: words with blanks between them, but none before a dot.

        >>> Vocabulary("words", [".", "clear", "lungs"]).decode([4, 3, 2])
        'lungs clear.'
        """
        return " ".join(self.words(numbers)).replace(" .", ".")

    def clip_rows(self, table: torch.Tensor) -> torch.Tensor:
        """What CLIP's own embedding says of each token: float [len, width].

        Args:
            table: CLIP's token embedding, float [49408, width].

        Returns:
            A byte pair's row; of a word the mean over its byte pairs; for 0 that of CLIP's start
            token and for the unknown token that of its end token.
        """
        rows = [table[[START]], table[[END]]]
        for token in self.tokens:
            ids = [_pieces()[1][token]] if self.kind == "bpe" else _ids(token)
            rows.append(table[ids].mean(0, keepdim=True))
        return torch.cat(rows)

    def to_tensor(self) -> torch.Tensor:
        """uint8 [bytes], for a checkpoint: JSON in UTF-8."""
        text = json.dumps({"kind": self.kind, "tokens": self.tokens}, ensure_ascii=False)
        return torch.frombuffer(bytearray(text.encode("utf-8")), dtype=torch.uint8)

    @classmethod
    def from_tensor(cls, tensor: torch.Tensor) -> Vocabulary:
        """Read what `to_tensor` wrote. Raises WeightsError for anything else."""
        try:
            content = json.loads(bytes(tensor.to(torch.uint8).cpu().tolist()).decode("utf-8"))
            kind, tokens = content["kind"], content["tokens"]
            if kind not in ("words", "bpe") or not all(isinstance(t, str) for t in tokens):
                raise ValueError("no words")
            if len(set(tokens)) < len(tokens):
                raise ValueError("equal words")
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise WeightsError(
                f"The checkpoint's tensor 'vocabulary' is not a vocabulary ({error!r}). Give a "
                "checkpoint that UniCrossAdapter's stage 'reports' wrote."
            ) from error
        return cls(kind, tokens)


def _splitter(kind: Kind) -> Callable[[str], list[str]]:
    return r2gen_words if kind == "words" else _byte_pairs


def _byte_pairs(report: str) -> list[str]:
    words = r2gen_words(report)
    return [_pieces()[0][i] for i in _ids(" ".join(words))] if words else []


def _ids(text: str) -> list[int]:
    """CLIP's byte pairs of a text, without start and end."""
    row = tokenize([text], _LONGEST)[0]
    return row[1 : int(row.argmax())].tolist()


@cache
def _pieces() -> tuple[list[str], dict[str, int]]:
    """CLIP's byte pairs by number, and their numbers: 256 bytes, the same ending a word, and what
    each merge gives, in the file's order."""
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    lines = gzip.decompress(vocabulary_file().read_bytes()).decode("utf-8").split("\n")
    merges = ["".join(line.split()) for line in lines[1 : START - 512 + 1]]
    pieces = [*characters, *(c + _END_OF_WORD for c in characters), *merges]
    return pieces, {piece: number for number, piece in enumerate(pieces)}
