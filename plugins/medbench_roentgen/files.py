"""Names of what lies beside published weights. Imports nothing, for the spec names them."""

from __future__ import annotations

PIPELINE = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"
AUTOENCODER = "vae/config.json"
SAFETY_CHECKER = "safety_checker/config.json"
#: Of a BERT in the text encoder's place.
BERT = ("config.json", "tokenizer.json", "vocab.txt")
#: Files beside the weights that decide what is drawn, or that tell what else a folder holds.
FILES = (PIPELINE, SCHEDULER, AUTOENCODER, SAFETY_CHECKER, *BERT)
