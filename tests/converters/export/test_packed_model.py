"""Packed models are read back and checked, wrapped for TFLM, and part of a deployment."""

import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tflite
from helpers.networks.int8_network import (
    Conv,
    Int8Network,
    Quantization,
    build,
    random_network,
)

from edgel3_tflm.converters.export import artefacts
from edgel3_tflm.converters.export.pack import pack
from edgel3_tflm.converters.export.packed_flatbuffer import wrap_packed
from edgel3_tflm.converters.pipeline import ConvertOptions
from edgel3_tflm.errors import ModelFileError
from edgel3_tflm.networks.catalogue import find_variant
from edgel3_tflm.runtime.arena import plan_memory
from edgel3_tflm.runtime.deployment import Deployment
from edgel3_tflm.runtime.flatbuffer import find_packed_model, summarize
from edgel3_tflm.runtime.interpreters import open_interpreter
from edgel3_tflm.runtime.packed import HEADER, RECORD, Encoding, read_packed, unpack_kernel


def with_crc(blob: bytearray) -> bytes:
    struct.pack_into("<I", blob, 12, zlib.crc32(blob[16:]))
    return bytes(blob)


class TestReading:
    @pytest.fixture(scope="class")
    @classmethod
    def blob(cls) -> bytes:
        network = random_network(
            np.random.default_rng(8),
            rows=4,
            columns=6,
            filters=[8, 4, 2],
            pools=["none", "2x2", "global"],
            sparsity=[0.0, 0.7, 0.97],
        )
        blob = pack(build(network))
        encodings = [conv.encoding for conv in read_packed(blob).convolutions]
        assert encodings == [Encoding.DENSE, Encoding.GAP12, Encoding.GAP16]
        return blob

    def test_every_changed_byte_is_noticed(self, blob: bytes) -> None:
        for place in range(len(blob)):
            damaged = bytearray(blob)
            damaged[place] ^= 0x10
            with pytest.raises(ModelFileError, match="packed model"):
                read_packed(bytes(damaged))

    def test_every_cut_is_noticed_and_bytes_behind_are_ignored(self, blob: bytes) -> None:
        for size in range(len(blob)):
            with pytest.raises(ModelFileError, match="packed model"):
                read_packed(blob[:size])
        assert read_packed(blob + b"more").size_bytes == len(blob)

    def test_contradictions_under_a_true_checksum_are_refused_or_harmless(
        self, blob: bytes
    ) -> None:
        rng = np.random.default_rng(9)
        refused = 0
        for _ in range(3000):
            damaged = bytearray(blob)
            place = int(rng.integers(16, HEADER.size + 3 * RECORD.size + 100))
            damaged[place] = int(rng.integers(256))
            try:
                model = read_packed(with_crc(damaged))
                plan_memory(with_crc(damaged))
                for conv in model.convolutions:
                    unpack_kernel(conv)
            except ModelFileError:
                refused += 1
        assert refused > 1000

    @pytest.mark.parametrize(
        ("offset", "value", "message"),
        [
            (4, b"\2\0", "version 1, found 2"),
            (6, b"\0\0", "0 convolutions"),
            (6, b"\11\0", "9 convolutions"),
            (16, b"\0\0", "conv1 without a map"),
            (20, b"\5\0", "an output that is not the last"),
            (22, b"\1", "bytes of the header that must be zero"),
            (24, struct.pack("<f", 0), "a scale that is not positive"),
            (32, struct.pack("<f", np.nan), "a scale that is not positive"),
            (HEADER.size + 0, b"\2\0", "conv1 that does not take|bytes of weights"),
            (HEADER.size + 6, b"\x7f\x80", "conv1 with clamps 127 and -128"),
            (HEADER.size + 8, b"\2", "conv1 with pooling GLOBAL"),
            (HEADER.size + 8, b"\3", "conv1 with pooling 3"),
            (HEADER.size + 9, b"\3", "conv1 with encoding 3"),
            (HEADER.size + 10, b"\1", "record of conv1 that must be zero"),
            (HEADER.size + 12, b"\xff\xff\0\0", "channel table beyond the end"),
            (HEADER.size + 16, b"\xff\xff\0\0", "weights beyond the end"),
        ],
    )
    def test_contradictions_are_named(
        self, blob: bytes, offset: int, value: bytes, message: str
    ) -> None:
        damaged = bytearray(blob)
        damaged[offset : offset + len(value)] = value
        with pytest.raises(ModelFileError, match=message):
            read_packed(with_crc(damaged))

    def test_the_header_tells_source_and_quantization(self, tiny_int8: Deployment) -> None:
        model = read_packed(tiny_int8.read_packed_model() or b"")
        interpreter = open_interpreter(tiny_int8.read_model("int8"))
        digest = tiny_int8.manifest["artefacts"]["int8.tflite"]["sha256"]
        assert model.source_sha256.hex() == digest[:32]
        assert (model.rows, model.columns, model.embedding_size) == (64, 50, 4)
        assert (model.input_scale, model.input_zero_point) == (
            interpreter.input.scale,
            interpreter.input.zero_point,
        )
        assert (model.output_scale, model.output_zero_point) == (
            interpreter.output.scale,
            interpreter.output.zero_point,
        )

    def test_the_plan_adds_up(self) -> None:
        kernel = np.zeros((5, 3, 3, 2), np.int8)
        kernel[4] = np.arange(18).reshape(3, 3, 2) - 9
        network = Int8Network(
            4,
            130,
            Quantization(1, 0),
            (
                Conv(
                    np.zeros((2, 3, 3, 1), np.int8),
                    None,
                    np.ones(2, np.float32),
                    Quantization(256, 0),
                    pool="2x2",
                ),
                Conv(kernel, None, np.ones(5, np.float32), Quantization(256, 0), pool="global"),
            ),
        )
        plan = plan_memory(pack(build(network)))
        assert plan.state == 2048
        assert plan.rings == (464, 464)  # 3 * 132 + 64 = 460; 3 * 133 + 64 = 463
        assert plan.tap_offsets == 48  # 2 * 18 = 36
        assert plan.taps == 160  # 8 * (17 + 3): one of 18 weights is zero
        assert plan.accumulators == 768  # 4 * 192
        assert plan.row == 192
        assert plan.maximum == 16
        assert plan.arena_bytes == 2048 + 2 * 464 + 48 + 160 + 768 + 192 + 16


class TestCustomOperator:
    def test_one_operator_on_the_packed_model(self, tiny_int8: Deployment) -> None:
        blob = tiny_int8.read_packed_model() or b""
        model = (tiny_int8.directory / "int8_packed.tflite").read_bytes()
        dense = tflite.Model.GetRootAsModel(tiny_int8.read_model("int8"), 0)
        root = tflite.Model.GetRootAsModel(model, 0)
        graph = root.Subgraphs(0)
        assert root.Version() == 3
        assert root.Description() == dense.Description()
        assert (root.SubgraphsLength(), graph.OperatorsLength(), graph.TensorsLength()) == (1, 1, 3)
        operation = graph.Operators(0)
        code = root.OperatorCodes(operation.OpcodeIndex())
        assert code.CustomCode() == b"EDGEL3"
        assert code.BuiltinCode() == code.DeprecatedBuiltinCode() == tflite.BuiltinOperator.CUSTOM
        assert list(operation.InputsAsNumpy()) == [graph.Inputs(0), 1]
        assert list(operation.OutputsAsNumpy()) == [graph.Outputs(0)]
        for found, index, like in (
            (graph.Tensors(graph.Inputs(0)), dense.Subgraphs(0).Inputs(0), [1, 64, 50, 1]),
            (graph.Tensors(graph.Outputs(0)), dense.Subgraphs(0).Outputs(0), [1, 4]),
        ):
            known = dense.Subgraphs(0).Tensors(index)
            assert found.Type() == known.Type() == tflite.TensorType.INT8
            assert list(found.ShapeAsNumpy()) == list(known.ShapeAsNumpy()) == like
            assert found.Quantization().Scale(0) == known.Quantization().Scale(0)
            assert found.Quantization().ZeroPoint(0) == known.Quantization().ZeroPoint(0)
        constant = graph.Tensors(1)
        assert (constant.Type(), constant.Shape(0)) == (tflite.TensorType.UINT8, len(blob))
        assert root.Buffers(constant.Buffer()).DataAsNumpy().tobytes() == blob
        assert root.Buffers(0).DataLength() == 0
        assert find_packed_model(model) == blob
        assert find_packed_model(tiny_int8.read_model("int8")) is None
        assert summarize(model).input_shape == (1, 64, 50, 1)

    @pytest.mark.parametrize("description", ["", "a", "abcdefghijklm", "not Unicode: \udcff"])
    def test_the_packed_model_lies_on_16_bytes(self, description: str) -> None:
        for seed in range(8):
            rng = np.random.default_rng(seed)
            widths = [int(width) for width in rng.integers(1, 9, 2)]
            network = random_network(
                rng, rows=2, columns=2, filters=widths, pools=["none", "global"]
            )
            blob = pack(build(network))
            model = wrap_packed(blob, description)
            assert model.index(blob) % 16 == 0
            assert model == wrap_packed(blob, description)

    def test_damaged_packed_models_are_not_wrapped(self) -> None:
        with pytest.raises(ModelFileError):
            wrap_packed(bytes(100), "nothing")


class TestDeployment:
    def test_the_manifest_describes_the_packed_model(self, tiny_int8: Deployment) -> None:
        blob = (tiny_int8.directory / "packed.edgel3").read_bytes()
        assert blob == pack(tiny_int8.read_model("int8"))
        packed = tiny_int8.manifest["packed"]
        artefacts = tiny_int8.manifest["artefacts"]
        assert packed["bytes"] == len(blob) == artefacts["packed.edgel3"]["bytes"]
        assert packed["arena_bytes"] == plan_memory(blob).arena_bytes
        for layer, packed_layer in zip(tiny_int8.manifest["layers"], packed["layers"], strict=True):
            assert packed_layer["name"] == layer["name"]
            assert packed_layer["dense_macs"] == layer["dense_macs"]
            assert packed_layer["packed_macs"] == layer["effective_macs"]  # no list, no fillers

    def test_int16x8_is_not_packed(self, tiny_int16x8: Deployment) -> None:
        assert "packed" not in tiny_int16x8.manifest
        assert tiny_int16x8.read_packed_model() is None
        assert not [name for name in tiny_int16x8.manifest["artefacts"] if "packed" in name]

    def test_what_cannot_be_packed_is_converted_all_the_same(
        self,
        convert_to: Callable[[ConvertOptions], Deployment],
        tiny_weights: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def refuse(model: bytes) -> bytes:
            raise ModelFileError(f"no {len(model)}")

        monkeypatch.setattr(artefacts, "pack", refuse)
        hiss = np.random.default_rng(0).normal(0, 0.1, 8000)
        soundfile.write(tmp_path / "hiss.wav", hiss, 8000)
        variant = find_variant("sea", embedding_size=64)
        deployment = convert_to(ConvertOptions(variant, tiny_weights, calibration=tmp_path))
        assert deployment.manifest["packed"] == {
            "refused": f"no {len(deployment.read_model('int8'))}"
        }
        assert deployment.read_packed_model() is None
        assert sorted(deployment.manifest["artefacts"]) == [
            "edgel3_model.cc",
            "edgel3_model.h",
            "edgel3_model_frontend.c",
            "edgel3_model_frontend.h",
            "float.tflite",
            "int8.tflite",
        ]

    @pytest.mark.parametrize("language", ["c", "c++"])
    def test_the_c_pair_compiles_alone_and_beside_the_other(
        self, language: str, tiny_int8: Deployment, tmp_path: Path
    ) -> None:
        directory = tiny_int8.directory
        main = tmp_path / "main.c"
        main.write_text("""
#include <stdint.h>
#include <stdio.h>
#include "edgel3_packed_model.h"
#include "edgel3_model.h"
typedef char size_fits[sizeof(edgel3_packed_model) == EDGEL3_PACKED_MODEL_BYTES ? 1 : -1];
typedef char input_fits[EDGEL3_MODEL_MELS * EDGEL3_MODEL_FRAMES == 64 * 50 ? 1 : -1];
int main(void) {
  if ((uintptr_t)edgel3_packed_model % 16 != 0) return 1;
  if (!(EDGEL3_MODEL_INPUT_FACTOR > 0 && EDGEL3_MODEL_OUTPUT_SCALE > 0)) return 2;
  fprintf(stderr, "%d %d", EDGEL3_PACKED_MODEL_ARENA_BYTES,
          EDGEL3_PACKED_MODEL_FAST_ARENA_BYTES);
  return fwrite(edgel3_packed_model, 1, sizeof edgel3_packed_model, stdout) !=
         sizeof edgel3_packed_model;
}
""")
        standard = {"c": "-std=c99", "c++": "-std=c++11"}[language]
        compiler = {"c": "gcc", "c++": "g++"}[language]
        flags = ["-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic", f"-I{directory}"]
        sources = [str(main), str(directory / "edgel3_packed_model.c")]
        program = tmp_path / "main"
        subprocess.run(
            [compiler, standard, *flags, "-x", language, *sources, "-o", str(program)], check=True
        )
        done = subprocess.run([str(program)], check=True, capture_output=True)
        assert done.stdout == tiny_int8.read_packed_model()
        planned = tiny_int8.manifest["packed"]
        arenas = [planned["arena_bytes"], planned["fast_arena_bytes"]]
        assert list(map(int, done.stderr.split())) == arenas

    def test_the_packed_pair_names_its_weights(self, tiny_int8: Deployment) -> None:
        for name in ("edgel3_packed_model.c", "edgel3_packed_model.h"):
            with (tiny_int8.directory / name).open() as file:
                head = file.read(600)
            assert "do not edit" in head
            assert "weights file tiny.h5.gz" in head
            assert tiny_int8.manifest["artefacts"]["packed.edgel3"]["sha256"] in head
