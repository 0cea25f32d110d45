"""Writing reports of 60 tokens with what was read kept: at least 5 times faster than reading
everything again for each word, and the same reports."""

from __future__ import annotations

import time

import pytest
import torch

from medbench.models.contrastive import seeded
from medbench_unicrossadapter import UNICROSSADAPTER
from medbench_unicrossadapter.beam import Step, beam_search
from medbench_unicrossadapter.config import UniCrossAdapterConfig
from medbench_unicrossadapter.model import UniCrossAdapter
from medbench_unicrossadapter.network import ReportNetwork
from medbench_unicrossadapter.vocabulary import Vocabulary

STUDIES, WORDS, VOCABULARY = 32, 59, 800


@pytest.mark.performance
def test_decoding_is_5_times_faster_with_what_was_read_kept() -> None:
    config = UniCrossAdapterConfig.model_validate(UNICROSSADAPTER.presets["tiny"])
    with seeded(0), torch.no_grad():
        model = UniCrossAdapter(config)
        model.vocabulary = Vocabulary("words", [f"w{i}" for i in range(VOCABULARY - 2)])
        model.network = ReportNetwork(config, VOCABULARY, model.network.clip).eval()
        model.network.head.bias[0] = -100.0  # no report ends before its 60 tokens
        for parameter in model.network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    images = torch.rand(STUDIES, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(STUDIES, 2, dtype=torch.bool)

    def timed(step: Step) -> tuple[float, list[list[int]]]:
        started = time.perf_counter()
        found = beam_search(step, STUDIES, beam=3, words=WORDS, device=torch.device("cpu"))
        return time.perf_counter() - started, found

    def reread() -> Step:
        """Looks at the images once, and reads all words again for each."""
        seen = model.network.see(images, mask)
        return lambda tokens, _: model.network.read(tokens, seen)[:, -1]

    with torch.inference_mode():
        timed(model._going_on(images[:1].expand(STUDIES, -1, -1, -1, -1), mask))
        kept, reports = timed(model._going_on(images, mask))
        again, expected = timed(reread())

    print(f"{again / kept:.1f} times faster ({kept:.2f} s against {again:.2f} s)")
    assert reports == expected
    assert all(len(report) == WORDS for report in reports)
    assert again / kept >= 5
