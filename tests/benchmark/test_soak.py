"""`make soak`, in short: windows of every kind, and the notice of a wrong byte."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soak

from edgel3_tflm.runtime.c_library.engine import supported_kernels
from edgel3_tflm.runtime.deployment import Deployment


def test_all_kernels_and_the_emulated_board_give_the_reference_kernels_bytes(
    tiny_int8: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--windows", "60", "--emulated", "10", "-o", str(tmp_path)]
    assert soak.main([str(tiny_int8.directory), *options]) == 0
    shown = capsys.readouterr().out
    for name, count in (*((name, 60) for name in supported_kernels()), ("emulated Cortex-M7", 10)):
        assert f"{name}: pass: the reference kernels' bytes on {count} windows" in shown
    assert not list(tmp_path.glob("*.npy"))


def test_a_wrong_byte_fails_and_its_window_is_kept(
    monkeypatch: pytest.MonkeyPatch,
    tiny_int8: Deployment,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Wrong(soak.EngineInterpreter):  # type: ignore[misc]
        def run(self, windows: Any) -> Any:
            outputs = super().run(windows)
            outputs[3, 1] ^= 1
            return outputs

    monkeypatch.setattr(soak, "EngineInterpreter", Wrong)
    options = ["--windows", "6", "--emulated", "0", "--kernels", "portable", "-o", str(tmp_path)]
    assert soak.main([str(tiny_int8.directory), *options]) == 1
    assert "portable: FAIL: 1 of 6 windows differ" in capsys.readouterr().out
    (kept,) = tmp_path.glob("*-window-3.npy")
    assert np.unique(np.load(kept)).size == 1  # of the kind "one value"


def test_help_names_the_default_networks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        soak.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "default: 95.45 % and SEA-UST 64" in shown
