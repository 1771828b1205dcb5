"""The transformer for scikit-learn: its conventions, files and samples, copies, data frames."""

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from edgel3_tflm import EdgeL3Error, EdgeL3Transformer, embed_file
from edgel3_tflm.runtime.deployment import Deployment

RATE_HZ = 8000
CLIPS = np.random.default_rng(3).normal(0, 0.1, (4, 2 * RATE_HZ)).astype(np.float32)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [str(tmp_path / f"{number}.wav") for number in range(len(CLIPS))]
    for path, samples in zip(paths, CLIPS, strict=True):
        soundfile.write(path, samples, RATE_HZ, subtype="FLOAT")
    return paths


def test_scikit_learn_s_own_checks_pass(tiny_int8: Deployment) -> None:
    with warnings.catch_warnings():
        # The checks use tables of a few numbers, far beyond full scale, as sounds.
        warnings.simplefilter("ignore")
        check_estimator(EdgeL3Transformer(tiny_int8), on_skip=None)


def test_files_and_samples_give_the_mean_over_the_windows(
    files: list[str], tiny_int8: Deployment
) -> None:
    from_files = EdgeL3Transformer(tiny_int8.directory).fit_transform(files)
    expected = [
        embed_file(file, tiny_int8, hop_s=0.5, center=False).values.mean(axis=0) for file in files
    ]
    np.testing.assert_array_equal(from_files, expected)
    np.testing.assert_array_equal(
        EdgeL3Transformer(tiny_int8).fit(CLIPS).transform(CLIPS), expected
    )


def test_it_works_in_a_pipeline_as_a_clone_and_after_a_copy_to_another_process(
    files: list[str], tiny_int8: Deployment
) -> None:
    transformer = EdgeL3Transformer(str(tiny_int8.directory), hop_s=1, runtime="node")
    assert clone(transformer).get_params() == transformer.get_params()
    pipeline = make_pipeline(transformer, LogisticRegression()).fit(files, [0, 0, 1, 1])
    copy = pickle.loads(pickle.dumps(pipeline))  # noqa: S301 - made one line above
    np.testing.assert_array_equal(copy.predict_proba(files), pipeline.predict_proba(files))


def test_set_output_names_the_columns(files: list[str], tiny_int8: Deployment) -> None:
    pytest.importorskip("pandas")
    frame = EdgeL3Transformer(tiny_int8).set_output(transform="pandas").fit_transform(files)
    assert frame.shape == (4, 4)
    assert frame.columns[0] == "edgel3transformer0"


def test_wrong_parameters_and_files_raise_errors_of_the_package(tiny_int8: Deployment) -> None:
    with pytest.raises(EdgeL3Error, match="hop size"):
        EdgeL3Transformer(tiny_int8, hop_s=0).fit(CLIPS)
    with pytest.raises(EdgeL3Error, match="no such file"):
        EdgeL3Transformer(tiny_int8).fit_transform(["none.wav"])
