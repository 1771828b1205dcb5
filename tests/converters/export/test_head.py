"""The classifier head: what it learns, what int8 costs, and that C and Python score alike."""

import ctypes
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgel3_tflm.audio.manifest import LabelledClip
from edgel3_tflm.converters.export.head import Head, read_head
from edgel3_tflm.converters.export.head_source import HEADER_NAME, SOURCE_NAME
from edgel3_tflm.converters.export.head_training import fit_head, train_head
from edgel3_tflm.errors import EdgeL3Error, ModelFileError
from edgel3_tflm.evaluation.probe import Features
from edgel3_tflm.runtime.artefacts import HEAD_NAME
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.tensors import TensorSpec

LIBRARY = Path(__file__).parents[3] / "micro_app" / "lib" / "edgel3" / "src"
SIZE, WINDOWS = 16, 3
OUTPUT = TensorSpec((1, SIZE), np.dtype(np.int8), 0.125, -3)
needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


def ignore(step: str, done: int, total: int) -> None:
    """A progress callback that says nothing."""


def make_clips(labels: list[str]) -> list[LabelledClip]:
    return [
        LabelledClip(Path(f"{number}.wav"), label, 1 + number // 4 % 2)
        for number, label in enumerate(labels)
    ]


def make_features(clips: list[LabelledClip], classes: list[str], seed: int = 0) -> Features:
    """Embeddings in int8 steps in which each class raises a value of its own."""
    generator = np.random.default_rng(seed)
    rows = []
    for clip in clips:
        centre = np.zeros(SIZE)
        for position, name in enumerate(classes):
            centre[position] = 40 * (name in clip.label.split(";"))
        rows.append(np.rint(centre + generator.normal(0, 5, (WINDOWS, SIZE))))
    steps = np.clip(np.concatenate(rows), -125, 127)
    clip_of_window = np.repeat(np.arange(len(clips)), WINDOWS)
    values = (steps * OUTPUT.scale).astype(np.float32)
    position = np.tile(np.arange(WINDOWS), len(clips))
    return Features(values, clip_of_window, position, np.zeros(len(values), bool))


def fit(labels: list[str], classes: list[str], kind: str | None = None) -> Head:
    clips = make_clips(labels)
    head, figures = fit_head(clips, make_features(clips, classes), OUTPUT, ignore, kind=kind)
    assert sum(each.right_float for each in figures) == sum(each.decisions for each in figures)
    assert sum(each.right_int8 for each in figures) == sum(each.decisions for each in figures)
    return head


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c", "d"]])
def test_classes_that_are_apart_are_told_apart(classes: list[str]) -> None:
    head = fit([name for name in classes for _ in range(8)], classes)

    assert (head.kind, head.labels) == ("softmax", tuple(classes))
    assert head.weights.shape == (len(classes), SIZE)
    assert np.abs(head.weights).max(axis=1).tolist() == [127] * len(classes)


def test_clips_with_several_labels_or_none_get_a_score_for_each_class() -> None:
    head = fit(["a", "b", "a;b", ""] * 8, ["a", "b"])

    assert (head.kind, head.labels) == ("sigmoid", ("a", "b"))
    both = np.full((1, SIZE), OUTPUT.zero_point, np.int8)
    both[0, :2] += 40
    assert (head.scores(both) > 0.5).all()
    assert (head.scores(np.full((1, SIZE), OUTPUT.zero_point, np.int8)) < 0.5).all()


def test_embeddings_without_information_are_near_chance() -> None:
    clips = make_clips(["a", "b"] * 50)
    _, figures = fit_head(clips, make_features(clips, []), OUTPUT, ignore)

    # Binomial with 100 trials at 1/2: mean 50, deviation 5; four deviations.
    assert 30 <= sum(each.right_float for each in figures) <= 70


def test_the_same_clips_give_the_same_head() -> None:
    first, second = (fit(["a", "b", "c"] * 8, ["a", "b", "c"]).to_json() for _ in range(2))

    assert first == second


def test_a_class_that_the_other_folds_lack_is_never_guessed() -> None:
    clips = make_clips(["a", "a", "a", "a", "b", "b", "b", "b"])  # folds 1 and 2 have one each

    head, figures = fit_head(clips, make_features(clips, ["a", "b"]), OUTPUT, ignore)

    assert [(each.decisions, each.right_float, each.right_int8) for each in figures] == [
        (4, 0, 0),
        (4, 0, 0),
    ]
    assert head.labels == ("a", "b")


@pytest.mark.parametrize(
    ("labels", "kind", "reason"),
    [
        (["a", "a;b", "b"], "softmax", "one label for every clip"),
        (["a", "b"], "softmin", "unknown kind"),
        (["a", "a"], None, "2 to 64 classes, found 1"),
        ([f"{number}" for number in range(65)], None, "2 to 64 classes, found 65"),
    ],
)
def test_labels_that_no_head_can_have_are_refused(
    labels: list[str], kind: str | None, reason: str
) -> None:
    clips = make_clips(labels)

    with pytest.raises(EdgeL3Error, match=reason):
        fit_head(clips, make_features(clips, []), OUTPUT, ignore, kind=kind)


def test_one_fold_alone_is_refused() -> None:
    clips = [LabelledClip(clip.path, clip.label, 1) for clip in make_clips(["a", "b"])]

    with pytest.raises(EdgeL3Error, match="two folds"):
        fit_head(clips, make_features(clips, []), OUTPUT, ignore)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    head = fit(["a", "b", "c"] * 8, ["a", "b", "c"])

    head.write(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [HEAD_NAME, SOURCE_NAME, HEADER_NAME]
    )
    assert read_head(tmp_path).to_json() == read_head(tmp_path / HEAD_NAME).to_json()
    assert json.dumps(read_head(tmp_path).to_json()) == json.dumps(head.to_json())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "other"),
        ("kind", "hardmax"),
        ("labels", ["a"]),
        ("scale", [1.0, float("nan")]),
        ("zero_point", 200),
        ("weights", [[1] * SIZE, [200] * SIZE]),
        ("weights", "none"),
        ("provenance", None),
    ],
)
def test_a_damaged_head_is_refused(field: str, value: object, tmp_path: Path) -> None:
    fit(["a", "b"] * 8, ["a", "b"]).write(tmp_path)
    fields = json.loads((tmp_path / HEAD_NAME).read_bytes())
    (tmp_path / HEAD_NAME).write_text(json.dumps({**fields, field: value}))

    with pytest.raises(ModelFileError, match=HEAD_NAME):
        read_head(tmp_path)


@pytest.mark.parametrize(
    "field",
    [
        "format",
        "format_version",
        "kind",
        "labels",
        "zero_point",
        "scale",
        "bias",
        "weights",
        "model_sha256",
        "provenance",
    ],
)
def test_a_field_that_a_head_lacks_is_named(field: str, tmp_path: Path) -> None:
    fit(["a", "b"] * 8, ["a", "b"]).write(tmp_path)
    fields = json.loads((tmp_path / HEAD_NAME).read_bytes())
    del fields[field]
    (tmp_path / HEAD_NAME).write_text(json.dumps(fields))

    with pytest.raises(ModelFileError) as refusal:
        read_head(tmp_path)

    assert str(refusal.value) == (
        f"{tmp_path / HEAD_NAME}: expected the field {field}, it is missing; run train-head again"
    )


def test_a_head_of_a_later_version_is_refused_and_its_new_fields_are_not(tmp_path: Path) -> None:
    head = fit(["a", "b"] * 8, ["a", "b"])
    head.write(tmp_path)
    fields = json.loads((tmp_path / HEAD_NAME).read_bytes())
    (tmp_path / HEAD_NAME).write_text(json.dumps({**fields, "new": 1}))
    assert read_head(tmp_path).to_json() == head.to_json()
    (tmp_path / HEAD_NAME).write_text(json.dumps({**fields, "format_version": 2}))
    with pytest.raises(ModelFileError, match="version 2; a newer edgel3-tflm wrote it"):
        read_head(tmp_path)


def test_a_missing_or_cut_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot read"):
        read_head(tmp_path / HEAD_NAME)
    (tmp_path / HEAD_NAME).write_text('{"format":')
    with pytest.raises(ModelFileError, match="cut or damaged"):
        read_head(tmp_path)


class CHead:
    """The head as a device runs it, built for this machine."""

    def __init__(self, head: Head, directory: Path) -> None:
        head.write(directory)
        # An embedding and scores of the caller's; labels by number.
        (directory / "main.c").write_text(f"""
#include "{HEADER_NAME}"
void score(const int8_t *embedding, float *scores) {{
  edgel3_head_scores(&edgel3_model_head, embedding, scores);
}}
const char *label(int number) {{ return edgel3_model_head.labels[number]; }}
""")
        library = directory / "head.so"
        sources = [directory / "main.c", directory / SOURCE_NAME, LIBRARY / "edgel3_head.c"]
        command = ["gcc", "-std=c99", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
        command += ["-shared", "-fPIC", "-I", str(LIBRARY), *map(str, sources), "-lm"]
        subprocess.run([*command, "-o", str(library)], check=True)
        self._library = ctypes.CDLL(str(library))
        self._library.label.restype = ctypes.c_char_p
        self._classes = len(head.labels)

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(embeddings), self._classes), np.float32)
        for embedding, row in zip(embeddings, scores, strict=True):
            self._library.score(
                np.ascontiguousarray(embedding).ctypes.data_as(ctypes.c_void_p),
                row.ctypes.data_as(ctypes.c_void_p),
            )
        return scores

    def labels(self) -> tuple[str, ...]:
        return tuple(self._library.label(number).decode() for number in range(self._classes))


@needs_compiler
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_c_scores_as_python_does(kind: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    classes, size = 7, 512
    head = Head(
        kind,
        tuple(f"class {number}" for number in range(classes)),
        generator.integers(-127, 128, (classes, size), np.int8),
        generator.uniform(1e-6, 4e-5, classes).astype(np.float32),
        generator.normal(0, 2, classes).astype(np.float32),
        -128,
        "0" * 64,
        {},
    )
    embeddings = generator.integers(-128, 128, (200, size), np.int8)
    embeddings[0], embeddings[1] = 127, -128

    expected = head.scores(embeddings)

    found = CHead(head, tmp_path).scores(embeddings)
    # A sum of products is below 2^24 (512 * 255 * 127), exact in float32. Then a logit has two
    # roundings, of its product and its sum, and a third when the largest is subtracted; each is at
    # most 2^-24 of the largest magnitude there is. The score's relative error is that of two such
    # logits, of expf (below 1 ulp, 2^-23), of a sum of `classes` of them, and of a division.
    sums = (embeddings.astype(np.int64) + 128) @ head.weights.T.astype(np.int64)
    assert np.abs(sums).max() < 2**24
    magnitude = (np.abs(head.scale * sums) + np.abs(head.bias)).max()
    tolerance = 2 * 3 * 2 * magnitude * 2.0**-24 + (classes + 4) * 2.0**-23
    assert (np.abs(found - expected) <= expected * tolerance + 1e-38).all()


@needs_compiler
def test_labels_of_any_kind_survive_in_c(tmp_path: Path) -> None:
    names = ["plain", 'quo"ted', "back\\slash", "trigraph??/", "émeute", "line\nbreak"]
    head = Head(
        "softmax",
        tuple(names),
        np.zeros((len(names), 4), np.int8),
        np.ones(len(names), np.float32),
        np.zeros(len(names), np.float32),
        0,
        "0" * 64,
        {},
    )

    assert CHead(head, tmp_path).labels() == tuple(names)


def test_a_class_of_one_fold_is_named_in_what_the_head_was_trained_on(
    tiny_int8: Deployment, sounds: Path, tmp_path: Path
) -> None:
    rows = [("tone", "tone/1-0", 1), ("chirp", "chirp/1-0", 1), ("noise", "noise/1-0", 1)]
    rows += [("tone", "tone/2-0", 2), ("chirp", "chirp/2-0", 2)]
    lines = [f"{sounds / name}.wav\t{label}\t{fold}" for label, name, fold in rows]
    manifest = tmp_path / "manifest.tsv"
    manifest.write_text("\n".join(["file\tlabel\tfold", *lines]))
    head, _ = train_head(manifest, tiny_int8, ignore)
    assert head.provenance["notes"] == [
        "fold 1: class 'noise' cannot be recognised, no clip to learn from has it"
    ]
