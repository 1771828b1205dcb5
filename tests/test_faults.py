"""`make faults`, in short, and what it notices."""

import random
import sys
from pathlib import Path

import pytest
from faults import Command, Disturber, digest_files, main


def test_an_export_survives_each_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", "7", "--command", "export-app"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("export-app") == 7


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("file.write(b'half')", "it fails and leaves something"),
        ("Path(path + '.part').write_bytes(b'x'); file.write(b'half')", "temporary files are left"),
    ],
)
def test_what_is_left_half_written_is_noticed(body: str, complaint: str, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "Path(sys.argv[2]).mkdir(exist_ok=True); path = sys.argv[2] + '/file'\n"
        f"with open(path, 'wb', buffering=0) as file:\n  {body}; file.write(b'whole')\n"
        "Path(path + '.part').unlink(missing_ok=True)\n"
    )
    careless = Command([], digest_files, program=(sys.executable, "-c", script))
    disturber = Disturber(tmp_path)
    disturber.prepare("careless", careless)

    wrong = [
        complaint
        for seed in range(8)
        for complaint in disturber.disturb("careless", careless, "eio", random.Random(seed)).wrong
    ]
    assert any(each.startswith(complaint) for each in wrong)
    assert any(each.startswith("a traceback: OSError") for each in wrong)
