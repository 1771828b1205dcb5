"""The clips of a corpus, and the model that embeds them."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import soundfile
from helpers.toy_corpus import embed

from edgel3_tflm.audio.framing import Framing
from edgel3_tflm.embedding.api import get_embedding
from edgel3_tflm.embedding.corpus import CorpusClip, CorpusModel, read_clip_list
from edgel3_tflm.embedding.corpus_run import embed_corpus
from edgel3_tflm.embedding.models import ModelChoice
from edgel3_tflm.errors import AudioError, EdgeL3Error, EdgeL3Warning
from edgel3_tflm.runtime.deployment import Deployment


@pytest.fixture(scope="module")
def sea_corpus(tiny_int8: Deployment) -> CorpusModel:
    choice = ModelChoice(tiny_int8.directory)
    return CorpusModel.of(choice, Framing(hop_size=0.25), lambda *_: None)


def test_a_dataset_of_a_network_has_what_get_embedding_returns(
    archive: Path, tiny_int8: Deployment, sea_corpus: CorpusModel, tmp_path: Path
) -> None:
    clips = read_clip_list(archive)[:3]
    embed_corpus(clips, sea_corpus, tmp_path / "dataset", workers=1, progress=lambda *_: None)
    table = pq.read_table(tmp_path / "dataset")
    for clip in clips:
        samples, rate_hz = soundfile.read(clip.path)
        with pytest.warns(EdgeL3Warning, match="shorter"):
            expected, times = get_embedding(samples, rate_hz, tiny_int8, hop_size=0.25)
        rows = table.filter(pc.equal(table["clip"], clip.name))
        np.testing.assert_array_equal(np.stack(rows["embedding"].to_numpy()), expected)
        np.testing.assert_array_equal(rows["time"], times)
    digest = tiny_int8.manifest["artefacts"]["packed.edgel3"]["sha256"]
    assert table["model"].unique().to_pylist() == [digest]
    provenance = json.loads(table.schema.metadata[b"edgel3_tflm"])["provenance"]
    assert tiny_int8.manifest["weights"]["description"] in provenance


def test_a_worker_with_another_model_is_refused(
    archive: Path, sea_corpus: CorpusModel, tmp_path: Path
) -> None:
    other = replace(sea_corpus, settings={**sea_corpus.settings, "model_sha256": "0" * 64})
    with pytest.raises(EdgeL3Error, match="expected the model 000000000000"):
        embed(archive, other, tmp_path / "dataset")
    assert not list((tmp_path / "dataset").glob("*"))


def test_a_file_name_that_is_no_text_is_refused(archive: Path) -> None:
    path = archive / os.fsdecode(b"caf\xe9.wav")
    path.touch()
    with pytest.raises(
        AudioError, match=r"expected file names in UTF-8, found .*caf\\xe9.* rename"
    ):
        read_clip_list(archive)


@pytest.mark.parametrize(
    "text",
    ["a.wav\nb c.wav\n", "\ufefflabel\tfile\nx\ta.wav\ny\tb c.wav\n"],
    ids=["lines", "table"],
)
def test_a_manifest_is_a_table_or_a_list(tmp_path: Path, text: str) -> None:
    manifest = tmp_path / "clips.txt"
    manifest.write_text(text, encoding="utf-8")
    assert read_clip_list(manifest) == [CorpusClip(name, tmp_path) for name in ("a.wav", "b c.wav")]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no rows"), ("file\n", "no rows"), ("a.wav\na.wav\n", "in lines 1 and 2")],
)
def test_a_manifest_that_says_nothing_or_twice_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "clips.txt").write_text(text)
    with pytest.raises(AudioError, match=message):
        read_clip_list(tmp_path / "clips.txt")
    with pytest.raises(AudioError, match="cannot read"):
        read_clip_list(tmp_path / "none.txt")
