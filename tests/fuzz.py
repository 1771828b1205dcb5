"""`make fuzz MINUTES=n`: every reader in Python of files and frames from outside, under Atheris.

A reader may raise an ``EdgeL3Error`` of one line; anything else is a finding. Each target gets the
same time. It starts from valid inputs that are made here, and goes on from what earlier runs found
in ``build/fuzz``. The C library's targets are in ``micro_app/lib/edgel3/test``.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
ROOT = Path(__file__).parents[1]
MAX_BYTES = 65536


@dataclass(frozen=True)
class Target:
    """A reader, and valid inputs to start from.

    Parameters
    ----------
    read : callable
        Reads bytes.
    seeds : callable
        Returns the inputs.
    """

    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]


def _from_file(read: Callable[[Path], object], suffix: str) -> Callable[[bytes], object]:
    """Return a reader of bytes for a reader of files."""
    path = Path(tempfile.mkdtemp(prefix="edgel3-", dir="/dev/shm")) / f"file{suffix}"

    def run(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return run


def _weights() -> Target:
    from helpers.networks.keras_hdf5 import hdf5_bytes, random_weights
    from helpers.networks.small_weights import SMALL, in_newer_version

    from edgel3_tflm.networks.weight_files import inspect_weights

    def seeds() -> list[bytes]:
        old = hdf5_bytes(random_weights(SMALL))
        return [old, in_newer_version(old)]

    return Target(_from_file(inspect_weights, ".h5"), seeds)


def _small_models() -> list[bytes]:
    import numpy as np
    from helpers.networks.int8_network import build, random_network

    rng = np.random.default_rng(0)
    shape = {"rows": 6, "columns": 5, "filters": (2, 9, 3), "pools": ("2x2", "none", "global")}
    return [build(random_network(rng, **shape, sparsity=share)) for share in (0.0, 0.9)]


def _flatbuffer() -> Target:
    from edgel3_tflm.runtime.flatbuffer import find_packed_model, summarize, with_description

    def read(data: bytes) -> None:
        summarize(data)
        find_packed_model(data)
        with_description(data, "fuzzed")

    return Target(read, _small_models)


def _packed() -> Target:
    from helpers.networks.engine_networks import seal

    from edgel3_tflm.converters.export.pack import pack
    from edgel3_tflm.runtime.packed import read_packed, unpack_kernel

    def read(data: bytes) -> None:
        # With a right checksum, so that the fields behind it are read.
        for conv in read_packed(seal(data)).convolutions:
            unpack_kernel(conv)

    return Target(read, lambda: [pack(model) for model in _small_models()])


def _deployment_manifest() -> Target:
    from edgel3_tflm.runtime.deployment_manifest import parse_manifest

    def seeds() -> list[bytes]:
        convert = ["convert", "--model-type", "sea", "--embedding-size", "64", "--quiet"]
        convert += ["--weights", "generated", "--calibration-method", "minmax", "--no-adaround"]
        convert += ["--no-equalize", "--no-bias-correction"]
        with tempfile.TemporaryDirectory() as directory:
            model = Path(directory) / "model"
            subprocess.run([sys.executable, "-m", "edgel3_tflm", *convert, "-o", model], check=True)
            return [(model / "manifest.json").read_bytes()]

    return Target(parse_manifest, seeds)


def _drift() -> Target:
    import json

    from helpers.drift_json import make_drift_json

    from edgel3_tflm.drift.diff import diff_drift
    from edgel3_tflm.drift.drift_json import parse_drift

    seed = json.dumps(make_drift_json()).encode()
    before = parse_drift(seed)
    return Target(lambda data: diff_drift(before, parse_drift(data)), lambda: [seed])


def _recipe() -> Target:
    from edgel3_tflm.converters.training.recipe import Recipe, parse_recipe

    texts = sorted((ROOT / "edgel3_tflm" / "standin").glob("recipe*.toml"))
    return Target(
        lambda data: parse_recipe(data, Recipe), lambda: [path.read_bytes() for path in texts]
    )


def _plan() -> Target:
    from edgel3_tflm.converters.pruning.plan_file import parse_plan

    return Target(parse_plan, lambda: [b"# a plan\n[zeros_percent]\nconv1 = 10\nconv2 = 20.5\n"])


def _clips() -> Target:
    from edgel3_tflm.audio.manifest import read_manifest

    text = b"file\tlabel\tfold\na.wav\tdog\t1\nb.wav\tcat|dog\t2\n"
    return Target(_from_file(read_manifest, ".tsv"), lambda: [text])


def _wire() -> Target:
    from edgel3_tflm.device.wire import Decoder, Info, Packet, Statistics, encode

    def read(data: bytes) -> None:
        decoder = Decoder()
        decoder.feed(data[: len(data) // 2])
        decoder.feed(data[len(data) // 2 :])
        # With a right frame around them, so that the bodies are read.
        for body in (data[:2048], data[1:2049]):
            for packet in Decoder().feed(encode(Packet(1, 0, body=body))):
                for kind in (Info, Statistics):
                    _allow_refusal(lambda kind=kind, body=packet.body: kind.parse(body))

    return Target(read, lambda: [encode(Packet(1, 2, body=bytes(range(100)), is_answer=True))])


def _audio() -> Target:
    import io

    import numpy as np
    import soundfile

    from edgel3_tflm.audio.clips import read_clip

    def seeds() -> list[bytes]:
        found = []
        for container in ("WAV", "FLAC", "OGG", "AIFF", "AU"):
            buffer = io.BytesIO()
            soundfile.write(buffer, np.sin(np.arange(800) / 9) / 2, 8000, format=container)
            found.append(buffer.getvalue())
        return found

    return Target(_from_file(lambda path: read_clip(path, 8000), ".wav"), seeds)


TARGETS: dict[str, Callable[[], Target]] = {
    "weights": _weights,
    "flatbuffer": _flatbuffer,
    "packed": _packed,
    "deployment-manifest": _deployment_manifest,
    "drift": _drift,
    "recipe": _recipe,
    "plan": _plan,
    "clips": _clips,
    "wire": _wire,
    "audio": _audio,
}


def _allow_refusal(read: Callable[[], object]) -> None:
    """Call a reader; it may raise an ``EdgeL3Error`` of one line."""
    from edgel3_tflm.errors import EdgeL3Error

    try:
        read()
    except EdgeL3Error as error:
        if len(str(error).splitlines()) != 1:
            raise AssertionError(f"expected a message of one line, got {error!s:.200}") from error


def fuzz(name: str, corpus: Path, options: list[str]) -> None:
    """Fuzz a target; does not return."""
    import atheris

    with atheris.instrument_imports(include=["edgel3_tflm", "pyfive", "tflite", "cobs"]):
        target = TARGETS[name]()
    if not any(corpus.iterdir()):
        for number, seed in enumerate(target.seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(
        [sys.argv[0], str(corpus), *options],
        lambda data: _allow_refusal(lambda: target.read(data)),
    )
    atheris.Fuzz()


def main() -> int:
    """Fuzz all targets in turn; returns 0 if none has a finding."""
    parser = argparse.ArgumentParser(description="fuzz the readers of files from outside")
    parser.add_argument("targets", nargs="*", help=f"default: {', '.join(TARGETS)}")
    parser.add_argument("--minutes", type=float, default=1, help="for each; default: 1")
    parser.add_argument("--one", action="store_true", help="in this process, for this script's use")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "fuzz")
    options = parser.parse_args()
    found = False
    for name in options.targets or TARGETS:
        corpus = options.output / name
        corpus.mkdir(parents=True, exist_ok=True)
        limits = [
            f"-max_total_time={round(60 * options.minutes)}",
            f"-max_len={MAX_BYTES}",
            f"-artifact_prefix={options.output}/{name}-",
            "-rss_limit_mb=4096",
            "-timeout=60",
        ]
        if options.one:
            fuzz(name, corpus, limits)
        command = [sys.executable, __file__, name, "--one", "--minutes", str(options.minutes)]
        done = subprocess.run(
            [*command, "--output", options.output], capture_output=True, text=True, check=False
        )
        print(f"{name}: {_describe(done.stderr + done.stdout, done.returncode)}", flush=True)
        found |= done.returncode != 0
    return int(found)


def _describe(said: str, returncode: int) -> str:
    """Return executions and coverage, or the finding."""
    if returncode != 0:
        lines = said.strip().splitlines()
        errors = [line for line in lines if re.match(r"\s*(\w+\.)*\w*(Error|Exception)\b", line)]
        return f"FINDING: {' '.join([*errors[-1:], *lines[-2:]])}"
    runs = re.findall(r"^#(\d+)\s.*cov: (\d+)", said, re.MULTILINE)
    return f"{int(runs[-1][0]):,} executions, coverage {runs[-1][1]}" if runs else "did not run"


if __name__ == "__main__":
    sys.exit(main())
