"""The contents and the description of flatbuffers, intact and damaged."""

import struct
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import pytest
import tflite

from edgel3_tflm.converters.backend import load_backend
from edgel3_tflm.converters.quantization.tflite import to_float, to_quantized
from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.runtime.flatbuffer import FlatbufferSummary, summarize, with_description
from edgel3_tflm.runtime.interpreters import open_interpreter

T = TypeVar("T")

ROWS, COLUMNS = 6, 4
FIRST, SECOND = 3, 5
"""Filters of the two convolutions."""
FIRST_ZEROS, SECOND_ZEROS = 4, 17

KINDS = ["float", "int8", "int16x8"]


def windows(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    generator = np.random.default_rng(3)
    return generator.normal(0, 1, (count, ROWS, COLUMNS, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def models() -> dict[str, bytes]:
    """Two convolutions with a pool between them, as flatbuffers of each kind."""
    keras = load_backend().keras
    keras.backend.clear_session()
    inputs = keras.Input((ROWS, COLUMNS, 1), batch_size=1, name="log_mel")
    first = keras.layers.Conv2D(FIRST, 3, padding="same", activation="relu")
    second = keras.layers.Conv2D(SECOND, 3, padding="same")
    network = keras.Model(inputs, second(keras.layers.MaxPooling2D(2)(first(inputs))))
    generator = np.random.default_rng(4)
    for layer, zeros in ((first, FIRST_ZEROS), (second, SECOND_ZEROS)):
        kernel = generator.uniform(0.1, 1, layer.kernel.shape).astype(np.float32)
        kernel.reshape(-1)[:zeros] = 0
        layer.set_weights([kernel, generator.normal(0, 1, kernel.shape[-1])])

    def calibration() -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
        yield from (window[np.newaxis] for window in windows(4))

    return {
        "float": to_float(network),
        "int8": to_quantized(network, "int8", calibration),
        "int16x8": to_quantized(network, "int16x8", calibration),
    }


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, models: dict[str, bytes]) -> bytes:
    return models[request.param]


def buffer_places(model: bytes) -> list[tuple[int, bytes]]:
    """Offset and bytes of every buffer with contents."""
    root = tflite.Model.GetRootAsModel(model, 0)
    places = []
    for number in range(root.BuffersLength()):
        buffer = root.Buffers(number)
        if buffer.DataLength():
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            places.append((start, bytes(model[start : start + buffer.DataLength()])))
    return places


def result_or_none(function: Callable[[], T]) -> T | None:
    try:
        return function()
    except ModelFileError as error:
        message = str(error)
    assert message.isprintable()
    return None


def summary_or_none(model: bytes) -> FlatbufferSummary | None:
    """A summary with plausible counts, or None where the file is refused on one line."""
    summary = result_or_none(lambda: summarize(model))
    if summary is None:
        return None
    assert summary.size_bytes == len(model)
    for layer in summary.layers:
        assert 0 <= layer.zeros <= layer.weights <= len(model)
        assert 0 <= layer.effective_macs <= layer.dense_macs
        assert all(size >= 1 for size in layer.output_shape)
    return summary


def description_or_none(model: bytes) -> bytes | None:
    return result_or_none(lambda: with_description(model, "text"))


def test_summary_lists_operators_with_their_weights_and_macs(models: dict[str, bytes]) -> None:
    summary = summarize(models["float"])
    assert [layer.operator for layer in summary.layers] == ["CONV_2D", "MAX_POOL_2D", "CONV_2D"]
    first, pool, second = summary.layers
    assert (first.name, pool.name, second.name) == ("conv1", "max_pool_2d", "conv2")
    assert first.output_shape == (1, ROWS, COLUMNS, FIRST)
    assert second.output_shape == (1, ROWS // 2, COLUMNS // 2, SECOND)
    first_weights, second_weights = 9 * FIRST, 9 * FIRST * SECOND
    assert (first.weights, first.zeros) == (first_weights, FIRST_ZEROS)
    assert (pool.weights, pool.zeros, pool.dense_macs, pool.effective_macs) == (0, 0, 0, 0)
    assert (second.weights, second.zeros) == (second_weights, SECOND_ZEROS)
    assert first.dense_macs == ROWS * COLUMNS * first_weights
    assert first.effective_macs == ROWS * COLUMNS * (first_weights - FIRST_ZEROS)
    places = (ROWS // 2) * (COLUMNS // 2)
    assert second.dense_macs == places * second_weights
    assert second.effective_macs == places * (second_weights - SECOND_ZEROS)
    assert summary.weights == first_weights + second_weights
    assert summary.zeros == FIRST_ZEROS + SECOND_ZEROS
    assert summary.dense_macs == first.dense_macs + second.dense_macs
    assert summary.effective_macs == first.effective_macs + second.effective_macs


@pytest.mark.parametrize(
    ("kind", "input_type"), [("float", "float32"), ("int8", "int8"), ("int16x8", "int16")]
)
def test_summary_tells_the_input_and_the_output(
    models: dict[str, bytes], kind: str, input_type: str
) -> None:
    summary = summarize(models[kind])
    assert summary.input_type == input_type
    assert summary.input_shape == (1, ROWS, COLUMNS, 1)
    assert summary.output_shape == (1, ROWS // 2, COLUMNS // 2, SECOND)
    assert summary.size_bytes == len(models[kind])
    # Kernels lie between 0.1 and 1: quantized to 127 steps, no weight but the zeros becomes zero.
    assert summary.zeros == FIRST_ZEROS + SECOND_ZEROS


def test_an_operator_with_a_code_that_is_missing_is_refused(models: dict[str, bytes]) -> None:
    spoilt = bytearray(models["int8"])
    table = tflite.Model.GetRootAsModel(spoilt, 0).Subgraphs(0).Operators(1)._tab
    # The first field of an operator is the index of its code.
    struct.pack_into("<I", spoilt, table.Pos + table.Offset(4), 99)
    with pytest.raises(ModelFileError, match=r"damaged \(operator code 99\)"):
        summarize(bytes(spoilt))


@pytest.mark.parametrize(
    "data",
    [b"", b"\0\0\0\0TFL", b"TFL3" + bytes(60), b"\x1c\0\0\0TFL2" + bytes(100), b"PK\3\4" * 100],
)
def test_bytes_without_the_identifier_are_refused(data: bytes) -> None:
    for function in (summarize, lambda model: with_description(model, "text")):
        with pytest.raises(ModelFileError, match="expected a TFLite flatbuffer"):
            function(data)


def test_identifier_alone_is_refused() -> None:
    for offset in (0, 4, 8, 2**31, 2**32 - 1):
        for size in (0, 100):
            model = struct.pack("<I", offset) + b"TFL3" + bytes(size)
            assert summary_or_none(model) is None
            assert description_or_none(model) is None


def test_flatbuffer_cut_anywhere_is_refused_or_summarized(model: bytes) -> None:
    refused = 0
    for cut in np.linspace(0, len(model) - 1, 150, dtype=int).tolist():
        refused += summary_or_none(model[:cut]) is None
        description_or_none(model[:cut])
    # The tables of the model stand before or after the weights; some cuts lose none that is read.
    assert refused > 75
    assert summary_or_none(model) is not None


def test_flatbuffer_with_flipped_bytes_is_refused_or_summarized(model: bytes) -> None:
    generator = np.random.default_rng(5)
    outcomes = {True: 0, False: 0}
    for _ in range(1500):
        damaged = bytearray(model)
        for _ in range(generator.integers(1, 4)):
            damaged[generator.integers(8, len(model))] ^= generator.integers(1, 256)
        outcomes[summary_or_none(bytes(damaged)) is None] += 1
        description_or_none(bytes(damaged))
    assert min(outcomes.values()) > 100, outcomes


@pytest.mark.parametrize("value", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
def test_no_count_or_offset_in_a_flatbuffer_is_trusted(
    models: dict[str, bytes], value: int
) -> None:
    model = models["int8"]
    tracemalloc.start()
    try:
        for position in range(0, len(model) - 4, 4):
            damaged = bytearray(model)
            struct.pack_into("<I", damaged, position, value)
            summary_or_none(bytes(damaged))
            description_or_none(bytes(damaged))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(model)


def vector_of_operators(model: bytes) -> int:
    """Position of the count of operators."""
    graph = tflite.Model.GetRootAsModel(model, 0).Subgraphs(0)
    return int(graph._tab.Vector(graph._tab.Offset(10))) - 4


def with_operators(model: bytes, count: int) -> bytes:
    """List the first operator ``count`` times: a vector at the end, and a copy of it behind that.

    Offsets lead forward only; all but a table's offset to its vtable.
    """
    graph = tflite.Model.GetRootAsModel(model, 0).Subgraphs(0)
    operator = graph.Operators(0)
    old, field = operator._tab.Pos, graph._tab.Pos + graph._tab.Offset(10)
    vtable = old - struct.unpack_from("<i", model, old)[0]
    (table_bytes,) = struct.unpack_from("<H", model, vtable + 2)
    start = len(model)
    new = start + 4 + 4 * count
    tensors = new + table_bytes
    table = bytearray(model[old : old + table_bytes])
    struct.pack_into("<i", table, 0, new - vtable)
    inputs, outputs = operator._tab.Offset(6), operator._tab.Offset(8)
    struct.pack_into("<I", table, inputs, tensors - (new + inputs))
    struct.pack_into("<I", table, outputs, tensors + 12 - (new + outputs))
    listed = [new - (start + 4 + 4 * i) for i in range(count)]
    longer = bytearray(model)
    struct.pack_into("<I", longer, field, start - field)
    return (
        bytes(longer)
        + struct.pack(f"<I{count}I", count, *listed)
        + bytes(table)
        + struct.pack("<Iii", 2, operator.Inputs(0), operator.Inputs(1))
        + struct.pack("<Ii", 1, operator.Outputs(0))
    )


def test_more_operators_than_a_network_has_are_refused(models: dict[str, bytes]) -> None:
    # One large kernel could otherwise be read a million times.
    model = models["int8"]
    assert summarize(with_operators(model, 200)).weights == 200 * 9 * FIRST
    with pytest.raises(ModelFileError, match="201 operators"):
        summarize(with_operators(model, 201))


def test_count_of_operators_is_not_trusted(models: dict[str, bytes]) -> None:
    model = models["int8"]
    (count,) = struct.unpack_from("<I", model, vector_of_operators(model))
    assert count == 3
    for claimed in (2**31, 2**32 - 1):
        damaged = bytearray(model)
        struct.pack_into("<I", damaged, vector_of_operators(model), claimed)
        with pytest.raises(ModelFileError, match=f"{claimed} operators"):
            summarize(bytes(damaged))


@pytest.mark.parametrize("size", [0, -1, -(2**31)])
def test_shape_without_places_is_refused(models: dict[str, bytes], size: int) -> None:
    model = bytearray(models["int8"])
    graph = tflite.Model.GetRootAsModel(bytes(model), 0).Subgraphs(0)
    kernel = graph.Tensors(graph.Operators(0).Inputs(1))
    struct.pack_into("<i", model, kernel._tab.Vector(kernel._tab.Offset(4)), size)
    with pytest.raises(ModelFileError, match="a tensor of shape"):
        summarize(bytes(model))


def test_tensor_of_more_dimensions_than_a_network_has_is_refused(models: dict[str, bytes]) -> None:
    model = bytearray(models["int8"])
    graph = tflite.Model.GetRootAsModel(bytes(model), 0).Subgraphs(0)
    kernel = graph.Tensors(graph.Operators(0).Inputs(1))
    struct.pack_into("<I", model, kernel._tab.Vector(kernel._tab.Offset(4)) - 4, 9)
    with pytest.raises(ModelFileError, match="a tensor of 9 dimensions"):
        summarize(bytes(model))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "published weights edgel3_sea_ust_audio_emb_64.h5.gz (git blob id verified)",
        "poids entraînés à Paris, 重み, 🎤",
        "twelve bytes",
        "y" * 5000,
    ],
    ids=["empty", "byte", "plain", "non-ASCII", "no padding", "long"],
)
def test_description_is_read_back(model: bytes, text: str) -> None:
    described = with_description(model, text)
    assert summarize(described).description == text
    # The C++ runtimes read strings up to a NUL byte.
    assert text.encode() + b"\0" in described


def test_description_is_aligned_whatever_the_length_of_the_model(
    models: dict[str, bytes],
) -> None:
    for extra in range(17):
        described = with_description(models["int8"] + bytes(extra), "the description")
        start = described.index(b"the description") - 4
        assert start % 16 == 0
        assert len(described) % 16 == 0
        assert summarize(described).description == "the description"


def test_description_of_a_name_that_is_no_unicode_is_escaped(model: bytes) -> None:
    described = with_description(model, "weights \udcff.h5")
    assert summarize(described).description == "weights \\udcff.h5"


def test_last_description_counts(model: bytes) -> None:
    once = with_description(model, "the first text, which is the longer one")
    twice = with_description(once, "the second: größer")
    assert summarize(twice).description == "the second: größer"
    assert summarize(with_description(twice, "third")).description == "third"


def test_description_changes_nothing_else(model: bytes) -> None:
    described = with_description(with_description(model, "one"), "two: \u00e9")
    places = buffer_places(model)
    assert len(places) >= 4  # two kernels, two biases
    assert buffer_places(described) == places
    changed = [i for i, (old, new) in enumerate(zip(model, described, strict=False)) if old != new]
    assert len(changed) <= 4  # the offset of the description
    assert changed[-1] - changed[0] < 4
    before, after = summarize(model), summarize(described)
    assert after.layers == before.layers
    assert (after.input_type, after.input_shape) == (before.input_type, before.input_shape)
    assert (before.description, after.description) == ("MLIR Converted.", "two: \u00e9")


@pytest.mark.parametrize("runtime", ["litert-builtin", "tflm"])
@pytest.mark.parametrize("kind", ["float", "int8"])
def test_described_flatbuffer_computes_the_same(
    models: dict[str, bytes], kind: str, runtime: str
) -> None:
    described = with_description(with_description(models[kind], "one"), "två " * 50)
    plain, other = open_interpreter(models[kind], runtime), open_interpreter(described, runtime)
    values = windows(3)
    if kind == "int8":
        values = np.clip(np.round(values / plain.input.scale), -128, 127).astype(np.int8)
    expected = plain.run(values)
    assert len(np.unique(expected)) > 10
    assert other.run(values).tobytes() == expected.tobytes()
    assert (other.input, other.output) == (plain.input, plain.output)


def test_model_without_a_description_is_refused(models: dict[str, bytes]) -> None:
    model = bytearray(models["int8"])
    (table,) = struct.unpack_from("<I", model, 0)
    vtable = table - struct.unpack_from("<i", model, table)[0]
    struct.pack_into("<H", model, vtable + 4 + 2 * 3, 0)
    assert summarize(bytes(model)).description == ""
    with pytest.raises(ModelFileError, match="found none to replace"):
        with_description(bytes(model), "text")
