"""The Hub of the examples serves `hf://org/model`, a checkpoint of one tensor."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from safetensors.numpy import save

from fetcher.testing.origin import Origin


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    weights = save({"norm.weight": np.ones(4, np.float32)})
    with Origin() as running:
        running.add_repo("org/model", {"config.json": b"{}", "model.safetensors": weights, "model.bin": b"left out"})
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running
