"""Cut networks: the weights that are kept, and that cut networks convert, pack and run."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import assert_one_error_line, run
from helpers.networks.keras_hdf5 import random_weights

from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.keras.model import open_keras
from edgel3_tflm.converters.keras.network import build_network
from edgel3_tflm.converters.pipeline import ConvertOptions
from edgel3_tflm.converters.pruning.plan_file import write_plan
from edgel3_tflm.converters.pruning.reduce import cut_depth, cut_width, reduce_weights
from edgel3_tflm.drift.layers import analyse_layers
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.metrics import sqnr_db
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.networks.sources import load_weights
from edgel3_tflm.networks.variants import BATCH_NORM_EPSILON, Plan, Variant
from edgel3_tflm.networks.weight_files import pack_weights
from edgel3_tflm.networks.weights import BatchNorm, NetworkWeights
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.packed import read_packed

FILTERS = (4, 6, 4, 8, 6, 4, 6, 5)
SMALLER = (4, 5, 3, 8, 2, 4, 6, 3)
SEA = find_variant("sea", embedding_size=64).with_filters(FILTERS)
DENSE = find_variant("dense").with_filters(FILTERS)
PLAN = Plan(0, (0, 25, 50, 60, 70, 80, 90, 95))


def embed(weights: NetworkWeights, maps: np.ndarray) -> np.ndarray:
    found: np.ndarray = build_network(weights, batch_size=None)(maps).numpy()
    return found


@pytest.mark.parametrize("depth", [7, 6, 5, 2, 1])
@pytest.mark.parametrize(("whole", "layer"), [(SEA, "relu"), (DENSE, "conv")], ids=["sea", "l3"])
def test_embedding_of_a_cut_network_is_the_maximum_of_its_last_map(
    whole: Variant, layer: str, depth: int
) -> None:
    weights = random_weights(whole, seed=depth)
    spec = whole.frontend
    maps = np.random.default_rng(depth).normal(0, 1, (2, spec.mels, spec.frames, 1))
    keras = load_backend().keras
    network = build_network(weights, batch_size=None)
    inside = keras.Model(network.input, network.get_layer(f"{layer}{depth}").output)
    expected = inside(maps.astype(np.float32)).numpy().max((1, 2))
    cut = cut_depth(weights, depth)
    assert cut.variant == whole.with_depth(depth)
    # The same operators on the same values, one after the other: equal to the last bit.
    np.testing.assert_array_equal(embed(cut, maps.astype(np.float32)), expected)


def whole_numbers(variant: Variant) -> NetworkWeights:
    """Return small integer weights. Three layers stay far below 2**24, so float32 is exact."""
    generator = np.random.default_rng(5)
    # Together with the epsilon of the BatchNorm, this variance is exactly 1.
    unit = np.float32(1) - np.float32(BATCH_NORM_EPSILON)
    assert unit + np.float32(BATCH_NORM_EPSILON) == 1
    weights = random_weights(variant)

    def draw(*shape: int) -> np.ndarray:
        return generator.integers(-3, 4, shape).astype(np.float32)

    convs = []
    for layer, conv in zip(variant.layers, weights.convs, strict=True):
        size = layer.out_channels
        norm = BatchNorm(draw(size), draw(size), draw(size), np.full(size, unit))
        convs.append(
            replace(
                conv,
                kernel=draw(*layer.kernel_shape),
                bias=draw(size),
                batch_norm=norm if layer.batch_norm else None,
            )
        )
    return replace(weights, convs=tuple(convs))


@pytest.mark.parametrize("family", [SEA, DENSE], ids=["sea", "l3"])
def test_narrow_network_computes_what_the_whole_one_does_without_its_weakest_filters(
    family: Variant,
) -> None:
    variant = family.with_depth(3).with_filters((5, 6, 4))
    weights = whole_numbers(variant)
    kept = (3, 4, 2)
    # In the whole network, the next layer gets zero weights for the filters that the cut removes.
    strongest = []
    for conv, count in zip(weights.convs, kept, strict=True):
        sums = [float(abs(conv.kernel[..., each]).sum()) for each in range(conv.kernel.shape[3])]
        order = sorted(range(len(sums)), key=lambda each, sums=sums: (-sums[each], each))
        strongest.append(sorted(order[:count]))
    silenced = list(weights.convs)
    for number, (_, conv) in enumerate(pairwise(weights.convs), start=1):
        kernel = np.zeros_like(conv.kernel)
        inputs = strongest[number - 1]
        kernel[:, :, inputs] = conv.kernel[:, :, inputs]
        silenced[number] = replace(conv, kernel=kernel)
    spec = variant.frontend
    maps = np.random.default_rng(1).integers(-7, 8, (1, spec.mels, spec.frames, 1))
    expected = embed(replace(weights, convs=tuple(silenced)), maps.astype(np.float32))

    cut = cut_width(weights, kept)
    assert cut.variant == variant.with_filters(kept)
    assert [conv.kernel.shape for conv in cut.convs] == [
        layer.kernel_shape for layer in cut.variant.layers
    ]
    found = embed(cut, maps.astype(np.float32))
    assert abs(found).max() > 0
    np.testing.assert_array_equal(found, expected[:, strongest[-1]])


def test_filters_with_the_largest_sums_stay_in_their_order_and_the_first_of_equal_ones() -> None:
    variant = DENSE.with_depth(1).with_filters((6,))
    weights = random_weights(variant)
    kernel = np.zeros((3, 3, 1, 6), np.float32)
    kernel[1, 1, 0] = [1, -9, 2, 5, 2, -3]
    kernel[0, 0, 0] = [8, 1, 0, 0, 0, -3]  # sums 9, 10, 2, 5, 2, 6
    weights = replace(weights, convs=(replace(weights.convs[0], kernel=kernel),))
    for count, expected in [(5, [0, 1, 2, 3, 5]), (4, [0, 1, 3, 5]), (2, [0, 1]), (1, [1])]:
        cut = cut_width(weights, (count,)).convs[0]
        np.testing.assert_array_equal(cut.kernel, kernel[..., expected])
        np.testing.assert_array_equal(cut.bias, weights.convs[0].bias[expected])


def test_without_a_cut_the_weights_are_unchanged() -> None:
    weights = random_weights(SEA)
    assert reduce_weights(weights, None, None) is weights
    assert reduce_weights(weights, 8, FILTERS) is weights


def test_weights_say_how_they_were_cut() -> None:
    cut = reduce_weights(random_weights(SEA, seed=4), 6, SMALLER)
    assert cut.variant == SEA.with_depth(6).with_filters(SMALLER)
    assert cut.provenance.description == (
        "drawn at random with seed 4; embedding taken from conv6; cut to the filters"
        " 4, 5, 3, 8, 2, 4 with the largest absolute kernel weights, not retrained"
    )


@pytest.mark.parametrize(
    ("filters", "part"),
    [
        ((*FILTERS[:7], 6), "at most the filters that the weights have, 4, 6, 4, 8, 6, 4, 6, 5"),
        (FILTERS[:7], "8 numbers of filters"),
        ((0, *FILTERS[1:]), "from 1 to 1024"),
    ],
)
def test_filters_that_cannot_be_cut_to_are_refused(filters: tuple[int, ...], part: str) -> None:
    with pytest.raises(EdgeL3Error, match=part):
        cut_width(random_weights(SEA), filters)


@pytest.mark.parametrize("family", ["sea", "dense"])
def test_file_of_a_cut_network_says_its_depth_and_filters(tmp_path: Path, family: str) -> None:
    known = find_variant(family, embedding_size=64)
    cut = reduce_weights(random_weights(known.with_filters(FILTERS)), 5, SMALLER)
    path = tmp_path / "cut.h5.gz"
    path.write_bytes(pack_weights(cut))
    for variant in (known, cut.variant):
        loaded = load_weights(variant, path)
        assert loaded.variant == cut.variant
        for ours, theirs in zip(loaded.convs, cut.convs, strict=True):
            np.testing.assert_array_equal(ours.kernel, theirs.kernel.astype(np.float16))
            np.testing.assert_array_equal(ours.bias, theirs.bias)
    depth_only = cut_depth(random_weights(known.with_filters(FILTERS)), 5)
    path.write_bytes(pack_weights(depth_only))
    assert load_weights(known, path).variant == known.with_depth(5).with_filters(FILTERS)
    with pytest.raises(EdgeL3Error, match=r"these are the shapes of .* the filters 4, 6, 4, 8, 6"):
        load_weights(known.with_depth(7), path)
    assert b"filters" in gzip.decompress(path.read_bytes())


def run_integers(deployment: Deployment, decibels: np.ndarray, runtime: str) -> np.ndarray:
    interpreter = open_interpreter(deployment.read_model("int8", runtime), runtime)
    return interpreter.run(deployment.input_map.apply(decibels, interpreter.input))


@pytest.fixture(scope="module")
def sea_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "sea.h5.gz"
    path.write_bytes(pack_weights(random_weights(SEA, seed=2)))
    return path


@pytest.mark.parametrize(
    ("plan", "depth", "filters"),
    [(None, 7, None), (PLAN, 6, SMALLER), (PLAN, 1, None)],
    ids=["conv7", "all", "conv1"],
)
def test_cut_network_runs_in_the_engine_as_in_the_reference(
    convert_to: Callable[[ConvertOptions], Deployment],
    sea_file: Path,
    short_calibration: Path,
    plan: Plan | None,
    depth: int | None,
    filters: tuple[int, ...] | None,
) -> None:
    base = find_variant("sea", embedding_size=64)
    if plan is not None:
        base = base.with_plan(plan)
    deployment = convert_to(
        ConvertOptions(base, sea_file, short_calibration, depth=depth, filters=filters)
    )
    variant = deployment.variant
    assert variant.filters == (filters or FILTERS)[:depth]
    assert variant.plan is None or variant.plan.layers == PLAN.layers[:depth]
    for layer, known in zip(deployment.manifest["layers"], variant.layers, strict=True):
        assert layer["weights"] == known.kernel_size
        percent = layer["plan_percent"] or 0
        # TF-MOT keeps a whole number of weights, one at least.
        assert abs(layer["zeros"] - known.kernel_size * percent / 100) <= 1
    spec = variant.frontend
    decibels = np.random.default_rng(0).uniform(-80, 0, (4, spec.mels, spec.frames))
    decibels = decibels.astype(np.float32)
    expected = run_integers(deployment, decibels, "reference")
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(run_integers(deployment, decibels, "engine"), expected)

    header = (deployment.directory / "edgel3_packed_model.h").read_text()
    assert f"EDGEL3_MODEL_EMBEDDING_SIZE {variant.embedding_size}\n" in header
    blob = deployment.read_packed_model()
    assert blob is not None
    assert len(read_packed(blob).convolutions) == len(variant.filters)
    assert len(analyse_layers(deployment, decibels[:1]).layers) == 1 + len(variant.filters)
    assert deployment.manifest["weights"]["network"] == base.with_filters(FILTERS).name

    # Keras computes the same embedding. Layers of at most 72 products have a rounding error of less
    # than 72 * 2**-24 of their size each, so six of them leave more than 91 dB.
    in_keras = open_keras(deployment, sea_file).embed(np.empty(0, np.float32), decibels)
    assert sqnr_db(in_keras, deployment.embedder("float").embed_log_mel(decibels)) > 91


def test_other_commands_accept_a_network_with_plan_depth_and_filters(
    tmp_path: Path, sea_file: Path, short_calibration: Path
) -> None:
    plan, output, app = tmp_path / "plan.toml", tmp_path / "cut", tmp_path / "app"
    plan.write_bytes(write_plan(Plan(0, PLAN.layers[:5]), "of the layers that stay"))
    words = ["--model-type", "sea", "--embedding-size", 64, "--weights", sea_file, "--plan", plan]
    words += ["--embedding-layer", "conv5", "--filters", ",".join(map(str, SMALLER))]
    words += ["--calibration", short_calibration, "--calibration-method", "minmax"]
    words += ["--no-equalize", "--no-bias-correction", "--no-adaround"]
    done = run("convert", *words, "-o", output)
    assert done.returncode == 0, done.stderr
    assert "not retrained" in done.stdout
    shown = json.loads(run("info", output, "--json").stdout)
    assert shown["variant"]["filters"] == list(SMALLER[:5])
    assert shown["variant"]["name"].endswith("-plan-0-25-50-60-70-conv5-filters-4-5-3-8-2")
    estimated = run("estimate", output, "--no-build")
    assert estimated.returncode == 0, estimated.stderr
    exported = run("export-app", output, "--board", "portenta_h7_m7", "-o", app)
    assert exported.returncode == 0, exported.stderr


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--embedding-layer", "conv9"], "unknown embedding layer 'conv9'"),
        (["--filters", "width-1"], "unknown filters 'width-1'"),
        (["--filters", "1,2"], "expected 8 numbers of filters from 1 to 1024, got 1, 2"),
        (["--filters", "4,6,4,8,6,4,6,9"], "at most the filters that the weights have"),
        (["--plan", "short.toml"], "expected 8 percents of zeros from 0 to 100, got 0, 25"),
        (["--plan", "none.toml"], "none.toml: cannot read: No such file"),
        (["--plan", "none.toml", "--sparsity", "99"], "one of --sparsity and --plan FILE"),
    ],
)
def test_cut_that_cannot_be_made_is_refused_and_writes_nothing(
    tmp_path: Path, sea_file: Path, words: list[str], part: str
) -> None:
    short, output = tmp_path / "short.toml", tmp_path / "out"
    short.write_bytes(write_plan(Plan(0, PLAN.layers[:2]), "two layers"))
    words = [str(short) if word == short.name else word for word in words]
    known = ["--model-type", "sea", "--embedding-size", 64, "--weights", sea_file, "-o", output]
    assert_one_error_line(run("convert", *known, *words), part)
    assert list(tmp_path.iterdir()) == [short]


def test_a_plan_file_has_neither_published_weights_nor_the_stand_in(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_bytes(write_plan(PLAN, "made up"))
    for weights in ("auto", "bundled"):
        done = run("convert", "--plan", plan, "--weights", weights, "-o", tmp_path / "out")
        assert_one_error_line(done, "edgel3-ft-plan-0-25-50-60-70-80-90-95", "--weights FILE")
