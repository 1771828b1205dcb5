"""The proofs about the C library: `make prove` checks all of them, this test that they can fail."""

import shutil
from pathlib import Path

import prove
import pytest


def analyze_changed(tmp_path: Path, proof: str, file: str, old: str, new: str) -> prove.Result:
    """Analyze a proof about the library with the only occurrence of a text replaced."""
    library = tmp_path / "src"
    shutil.copytree(prove.LIBRARY, library)
    text = (library / file).read_text()
    assert text.count(old) == 1
    (library / file).write_text(text.replace(old, new))
    return prove.analyze(prove.PROOFS / f"{proof}.c", library)


@pytest.mark.skipif(shutil.which("frama-c") is None, reason="needs frama-c")
@pytest.mark.parametrize(
    ("proof", "file", "check", "without"),
    [
        ("packed_dense", "edgel3_packed.c", "(size_t)(end - cursor) < taps", "0"),
        ("wire_decode", "edgel3_wire.c", "decoder->length < sizeof decoder->frame", "1"),
    ],
)
def test_a_missing_check_is_an_alarm(
    tmp_path: Path, proof: str, file: str, check: str, without: str
) -> None:
    result = prove.analyze(prove.PROOFS / f"{proof}.c")
    assert not result.error
    assert not result.alarms
    result = analyze_changed(tmp_path, proof, file, check, without)
    assert not result.error
    assert any(alarm.startswith(f"{file}: ") for alarm in result.alarms)
