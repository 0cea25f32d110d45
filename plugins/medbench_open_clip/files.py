"""Names of what lies beside published weights. Imports nothing, for the spec names them."""

from __future__ import annotations

OPEN_CLIP_CONFIG = "open_clip_config.json"
TRANSFORMERS_CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
#: Files beside the weights that decide the network, its preprocessing and its tokens.
FILES = (OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG, PREPROCESSOR, *TOKENIZER)
