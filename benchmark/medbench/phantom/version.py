"""The renderer's version: part of every seed, so raising it redraws the whole phantom world."""

from __future__ import annotations

#: Raise on any change that alters a rendered pixel, a text or a table; then freeze the yardsticks
#: again (`medbench.phantom.yardsticks.freeze`), before any model is run on the new pixels.
RENDERER_VERSION = "1.1"
