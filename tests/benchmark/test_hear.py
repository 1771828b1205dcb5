"""`make hear`, in short: a node with open ears loses nothing, and a wrong embedding is noticed."""

from typing import Any

import hear
import numpy as np
import pytest

from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.types import Int8Array


def test_a_fast_network_hears_every_sample_and_embeds_as_this_machine_does(
    sea_generated: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    # Four windows: the node hears three of them while its network runs.
    assert hear.main([str(sea_generated.directory), "--seconds", "4"]) == 0
    shown = capsys.readouterr().out
    assert "4 windows in 4.0 s of sound, coverage 100.0 %, 0 samples lost, 0 skipped" in shown
    assert "0 embeddings differ" in shown


def test_an_embedding_that_differs_fails(
    monkeypatch: pytest.MonkeyPatch, tiny_int8: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    class Wrong(hear.Engine):  # type: ignore[misc]
        def run(self, window: Any) -> Int8Array:
            return np.bitwise_xor(super().run(window), np.int8(1))

    monkeypatch.setattr(hear, "Engine", Wrong)
    assert hear.main([str(tiny_int8.directory), "--seconds", "1"]) == 1
    assert ": FAIL: " in (shown := capsys.readouterr().out)
    assert "1 embeddings differ [1]" in shown
