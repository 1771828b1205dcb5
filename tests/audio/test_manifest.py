"""Manifests: one reader for all commands, and one line for what it refuses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgel3_tflm.audio.datasets import load_dataset
from edgel3_tflm.audio.manifest import LabelledClip, read_manifest
from edgel3_tflm.cli.commands import app
from edgel3_tflm.embedding.corpus import CorpusClip, read_clip_list
from edgel3_tflm.errors import AudioError, EdgeL3Error
from edgel3_tflm.evaluation.probe import Features, probe

HEADER = "file\tlabel\tfold\n"
READERS: dict[str, Callable[[Path], object]] = {
    "embed": read_clip_list,
    "most commands": read_manifest,
    "evaluate": lambda path: load_dataset(str(path.parent)),
}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return tmp_path / "manifest.tsv"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label,fold\na.wav,dog,1\n", "expected tab-separated .*'file,label,fold'"),
        ("filename,fold,category\na.wav,1,dog\n", "expected tab-separated .*'filename,fold,categ"),
        ("path\tlabel\tfold\na.wav\tdog\t1\n", r"expected tab-separated .*'path\\tlabel\\tfold'"),
        ("a.wav\tdog\t1\nb.wav\tcat\t2\n", r"expected tab-separated .*'a\.wav\\tdog\\t1'"),
        (f"{','.join(['filename'] * 99)}\na.wav\n", "expected tab-separated .*filename.*\\.\\.\\."),
        ("path\na.wav\n", "expected tab-separated .*'path'"),
        (f"{HEADER}a.wav\tdog\t1\n\nb.wav\tcat\t1\na.wav\tdog\t1\n", "a.wav is in lines 2 and 5"),
        (f"{HEADER}a.wav\tdog\t1\n./a.wav\tdog\t1\n", "a.wav is in lines 2 and 3"),
        (f"{HEADER}a.wav\tdog\t1\n\tcat\t1\n", "expected a file in line 3"),
        (f"{HEADER}a.wav\tdog\t1\nb\0.wav\tcat\t1\n", "expected a file in line 3"),
        (f"{HEADER}a.wav\tdog\t1\nb.wav\tcat\t2\tx\n", "expected 3 columns in line 3, found 4"),
        (f"{HEADER}a.wav\tdog\t1\nb.wav\n", "expected 3 columns in line 3, found 1"),
        (f'{HEADER}"a.wav\tdog\t1\nb.wav\tcat\t1\n', "cannot read line 2: unexpected end of data"),
        (f'{HEADER}a.wav\tdog\t1\n"b".wav\tcat\t1\n', "cannot read line 3: "),
        ("", "no rows"),
        (HEADER, "no rows"),
    ],
)
def test_every_command_refuses_a_manifest_in_the_same_line(
    manifest: Path, reader: str, text: str, message: str
) -> None:
    manifest.write_text(text)
    with pytest.raises(AudioError, match=message) as caught:
        READERS[reader](manifest)
    assert str(manifest) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("command", ["embed -o d --manifest", "probe --statistics sea --manifest"])
def test_a_command_refuses_a_comma_separated_manifest_in_a_line(
    manifest: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(manifest.parent)
    manifest.write_text("file,label,fold\na.wav,dog,1\n")
    result = CliRunner().invoke(app, [*command.split(), str(manifest)])
    assert result.exit_code == 1
    assert "expected tab-separated" in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize("prefix", ["", "\ufeff", "\n"], ids=["plain", "byte order mark", "blank"])
def test_every_command_reads_the_same_clips(manifest: Path, prefix: str) -> None:
    manifest.write_text(f"{prefix}{HEADER}a.wav\tdog\t1\n\nb c.wav\tcat\t2\n", encoding="utf-8")
    root = manifest.parent
    assert read_clip_list(manifest) == [CorpusClip(name, root) for name in ("a.wav", "b c.wav")]
    assert read_manifest(manifest) == [
        LabelledClip(root / "a.wav", "dog", 1),
        LabelledClip(root / "b c.wav", "cat", 2),
    ]


def test_a_fold_that_is_no_number_is_named_with_its_line(manifest: Path) -> None:
    manifest.write_text(f"{HEADER}a.wav\tdog\t1\n\nb.wav\tcat\tone\n")
    with pytest.raises(AudioError, match="expected a whole number, found fold 'one' in line 4"):
        read_manifest(manifest)


@pytest.mark.parametrize("first", ["a.wav", "no suffix", "no, suffix", "a.flac"])
def test_a_list_may_name_any_file(manifest: Path, first: str) -> None:
    if "suffix" in first:
        (manifest.parent / first).touch()
    manifest.write_text(f"\ufeff{first}\n\nfile\nb,c.wav\nd\u2028e.wav\n", encoding="utf-8")
    assert [clip.name for clip in read_clip_list(manifest)] == [
        first,
        "file",
        "b,c.wav",
        "d\u2028e.wav",
    ]


def test_a_list_does_not_name_a_file_twice(manifest: Path) -> None:
    manifest.write_text("a.wav\nb.wav\n\n./a.wav\n")
    with pytest.raises(AudioError, match=r"a\.wav is in lines 1 and 4"):
        read_clip_list(manifest)


CLIPS = [LabelledClip(Path(f"{number}.wav"), "ab"[number % 2], number // 2) for number in range(6)]


def test_a_fold_that_no_clip_has_is_named_with_those_there_are() -> None:
    rows = np.arange(len(CLIPS))
    features = Features(rows[:, None].astype(np.float32), rows, rows, rows < 0)
    with pytest.raises(EdgeL3Error, match="in fold 7, expected one of the folds 0, 1, 2"):
        probe(CLIPS, features, [7])
