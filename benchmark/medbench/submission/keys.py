"""Keys in place of sample ids that only holders of the data can turn back.

A plain hash of an id, salted with something public, hides nothing from whoever can list the ids:
MIMIC's patient numbers are ten million candidates, tried in seconds. So each id goes through HMAC
(RFC 2104) with a secret that follows from the data themselves: anyone who holds them derives it,
and nobody else can.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from medbench.data.samples import Sample
from medbench.errors import DataError
from medbench.run.load import Loaded

DIGITS = 32  # of a key, hexadecimal: 128 bits

#: Of real data so many files take part, drawn by the hash of their sample's id.
FILES = 16


def secret(loaded: Loaded) -> bytes:
    """32 bytes that follow from the divided data.

    SHA-256 over the manifest's content (ids, patients, labels, hashes of reports and annotations,
    division; its published hash does not give it) and, of real data, over the bytes of `FILES`
    image files: of a collection whose folders name the labels, the manifest alone could be guessed.
    Pixels of phantoms take no part, since they may differ in their last bit between processors, and
    a phantom holds no patient.

    Raises DataError where a file cannot be read.
    """
    state = hashlib.sha256(b"medbench.submission/1\n" + loaded.manifest.json.encode())
    if loaded.dataset.track == "real":
        for sample in sorted(loaded.samples, key=lambda s: _sha256(s.id))[:FILES]:
            state.update(_first_file(sample))
    return state.digest()


def key_id(secret: bytes) -> str:
    """Tells whether two secrets are the same; gives neither away."""
    return _hmac(secret, "medbench key id")


def sample_hmac(secret: bytes, sample_id: str) -> str:
    """What stands for a sample: `DIGITS` hexadecimal digits."""
    return _hmac(secret, "sample " + sample_id)


def _hmac(secret: bytes, text: str) -> str:
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()[:DIGITS]


def _first_file(sample: Sample) -> bytes:
    path = min(sample.files, key=Path.as_posix)
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise DataError(f"{path} of sample '{sample.id}' cannot be read: {error}.") from error


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
