"""`make faults`: commands that are disturbed at a random moment, a thousand times.

A run of a command meets one fault. Afterwards its output must be whole or absent, no temporary file
may be left unless the process was killed, and the message must be a line instead of a traceback.
The same command, run again, must then succeed and write what an undisturbed run writes.

===========  =======================================================================================
fault        what happens
===========  =======================================================================================
kill         SIGKILL to the process
terminate    SIGTERM to the process
worker       SIGKILL to one of its children, for commands that have some
enospc       the disk is full from one write on
eio, eintr   one write or fsync fails
short        one read returns half of the bytes
clock        the clock jumps by an hour, back and forth
===========  =======================================================================================

``native/faults.c``, loaded before the C library, makes the calls fail.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helpers.distillation import TINY_RECIPE
from helpers.networks.keras_hdf5 import random_weights, write_hdf5

from edgel3_tflm.audio.clips import bundled_clips_directory
from edgel3_tflm.files import sha256_hex
from edgel3_tflm.networks.catalogue import find_variant

SHIM = Path(__file__).parent / "native" / "faults.c"
SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "worker": signal.SIGKILL}
CALLS = ("enospc", "eio", "eintr", "short", "clock")
LABELS = {"birds": "animal", "dog_bark": "animal", "engine_idle": "engine", "truck": "engine"}
GRACE_S = 600

Summary = dict[str, str]


@dataclass(frozen=True)
class Command:
    """A command under test.

    Parameters
    ----------
    arguments : list of str
        Without the output, which is the last option.
    summarize : callable
        Returns the digests of what is in an output directory, by name.
    resumes : bool
        Whether a disturbed run may leave whole parts, with which the next one goes on.
    has_workers : bool
    """

    arguments: list[str]
    summarize: Callable[[Path], Summary]
    resumes: bool = False
    has_workers: bool = False
    program: tuple[str, ...] = (sys.executable, "-m", "edgel3_tflm")

    def run(self, output: Path) -> list[str]:
        """Return the command line."""
        return [*self.program, *self.arguments, "-o", str(output)]


@dataclass
class Outcome:
    """What became of a disturbed run; ``wrong`` says what should not have happened."""

    command: str
    fault: str
    moment: float
    returncode: int
    wrong: list[str] = field(default_factory=list)


def digest_files(directory: Path) -> Summary:
    """Return the digest of each file."""
    return {
        path.relative_to(directory).as_posix(): sha256_hex(path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def digest_rows(directory: Path) -> Summary:
    """Return the digest of a dataset's rows, which do not depend on its division into files."""
    import pyarrow.parquet as pq

    if not list(directory.glob("*.parquet")):
        return {}
    table = pq.read_table(directory).sort_by([("clip", "ascending"), ("time", "ascending")])
    rows = table.select(["clip", "time", "embedding"]).to_pylist()
    return {"rows": hashlib.sha256(repr(rows).encode()).hexdigest()}


def digest_student(directory: Path) -> Summary:
    """Return the digest of trained weights; the logs of a run have times in their names."""
    path = directory / "student.h5.gz"
    return {path.name: sha256_hex(path.read_bytes())} if path.exists() else {}


class Disturber:
    """Runs commands in a directory, undisturbed or with a fault."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.shim = scratch / "faults.so"
        options = ["-std=gnu11", "-O2", "-shared", "-fPIC"]
        subprocess.run(["gcc", *options, SHIM, "-o", self.shim, "-ldl"], check=True)
        self.calls: dict[tuple[str, str], int] = {}
        self.seconds: dict[str, float] = {}
        self.expected: dict[str, Summary] = {}

    def prepare(self, name: str, command: Command) -> None:
        """Run a command undisturbed, twice: for its time, its calls and its output."""
        summaries = []
        for kind in ("write", "short", "clock"):
            log = self.scratch / "calls"
            log.unlink(missing_ok=True)
            output = self._make_place()
            environment = self._environment(output, kind, 0) | {"EDGEL3_FAULT_LOG": str(log)}
            start = time.monotonic()
            done = subprocess.run(
                command.run(output), env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                sys.exit(f"{name}, undisturbed: {done.stderr}")
            self.seconds[name] = time.monotonic() - start
            self.calls[name, kind] = max(map(int, log.read_text().split()))
            summaries.append(command.summarize(output))
        # What differs between undisturbed runs, such as measured times, is compared by name only.
        first = summaries[0]
        self.expected[name] = {
            key: digest if all(each[key] == digest for each in summaries) else ""
            for key, digest in first.items()
        }

    def _make_place(self) -> Path:
        """Return an output path in an empty directory."""
        place = self.scratch / "place"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return place / "output"

    def _environment(self, output: Path, fault: str, at: int) -> dict[str, str]:
        return {
            **os.environ,
            "LD_PRELOAD": str(self.shim),
            "EDGEL3_FAULT": fault,
            "EDGEL3_FAULT_AT": str(at),
            "EDGEL3_FAULT_ROOT": str(output.parent),
        }

    def disturb(self, name: str, command: Command, fault: str, rng: random.Random) -> Outcome:
        """Run a command with a fault at a random moment, then again without."""
        output = self._make_place()
        if fault in SIGNALS:
            outcome = self._strike(name, command, fault, output, rng.uniform(0, self.seconds[name]))
        else:
            kind = fault if fault in ("short", "clock") else "write"
            at = rng.randint(1, max(self.calls[name, kind], 1))
            done = subprocess.run(
                command.run(output),
                env=self._environment(output, fault, at),
                capture_output=True,
                text=True,
                check=False,
            )
            outcome = Outcome(name, fault, at, done.returncode, _judge_message(done))
        outcome.wrong += self._judge_output(name, command, outcome, output)
        again = subprocess.run(command.run(output), capture_output=True, text=True, check=False)
        if again.returncode != 0:
            outcome.wrong.append(f"the next run fails: {again.stderr.strip()[-300:]}")
        elif difference := self._difference(name, command.summarize(output)):
            outcome.wrong.append(f"the next run writes something else: {difference}")
        return outcome

    def _strike(
        self, name: str, command: Command, fault: str, output: Path, moment: float
    ) -> Outcome:
        """Send a signal to a command or to one of its children."""
        with subprocess.Popen(
            command.run(output), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                said = process.communicate(timeout=moment)
            except subprocess.TimeoutExpired:
                targets = [process.pid] if fault != "worker" else _children(process.pid)
                for target in targets[-1:]:
                    os.kill(target, SIGNALS[fault])
                said = process.communicate(timeout=GRACE_S)
        done = subprocess.CompletedProcess(process.args, process.returncode, *said)
        return Outcome(name, fault, moment, process.returncode, _judge_message(done))

    def _judge_output(
        self, name: str, command: Command, outcome: Outcome, output: Path
    ) -> Iterator[str]:
        if outcome.returncode != -signal.SIGKILL:
            left = [
                path.relative_to(output.parent).as_posix()
                for path in output.parent.rglob("*")
                if path.name.endswith(".part") or path.name.startswith(".")
            ]
            if left:
                yield f"temporary files are left: {left[:3]}"
        if outcome.returncode == 0:
            if difference := self._difference(name, command.summarize(output)):
                yield f"it succeeds and writes something else: {difference}"
        elif output.exists() and not command.resumes:
            found = command.summarize(output)
            if found and (difference := self._difference(name, found)):
                yield f"it fails and leaves something: {difference}"

    def _difference(self, name: str, found: Summary) -> str:
        expected = self.expected[name]
        if set(found) != set(expected):
            return f"files {sorted(set(found) ^ set(expected))[:3]}"
        differing = [key for key, digest in expected.items() if digest and found[key] != digest]
        return f"contents of {differing[:3]}" if differing else ""


def _judge_message(done: "subprocess.CompletedProcess[str]") -> list[str]:
    wrong = []
    if "Traceback" in done.stderr:
        wrong.append(f"a traceback: {done.stderr.strip().splitlines()[-1][:200]}")
    if done.returncode > 0 and not done.stderr.strip():
        wrong.append(f"status {done.returncode} without a message")
    return wrong


def _children(pid: int) -> list[int]:
    """Return the processes below a process; the last is one without children."""
    found: list[int] = []
    for path in Path("/proc").glob(f"{pid}/task/*/children"):
        for child in path.read_text().split():
            found += [int(child), *_children(int(child))]
    return found


def make_commands(scratch: Path) -> dict[str, Command]:
    """Return the commands, on a small network and short clips in a directory."""
    quiet = "--quiet"
    clips = scratch / "clips"
    clips.mkdir()
    for name in LABELS:
        shutil.copy(bundled_clips_directory() / f"{name}.flac", clips)
    rows = [f"{name}.flac\t{label}\t{1 + i % 2}" for i, (name, label) in enumerate(LABELS.items())]
    manifest = clips / "manifest.tsv"
    manifest.write_text("\n".join(["file\tlabel\tfold", *rows, ""]))
    recipe = scratch / "recipe.toml"
    recipe.write_text(TINY_RECIPE)
    teacher = scratch / "teacher.h5"
    write_hdf5(teacher, random_weights(find_variant("sea", embedding_size=64)))
    model = scratch / "model"
    plain = ["--calibration-method", "minmax"]
    plain += ["--no-equalize", "--no-bias-correction", "--no-adaround"]
    convert = ["convert", "--model-type", "sea", "--embedding-size", "64", "--weights", "generated"]
    convert += ["--calibration", str(clips), *plain, quiet]
    subprocess.run([sys.executable, "-m", "edgel3_tflm", *convert, "-o", str(model)], check=True)
    clip = str(clips / "birds.flac")
    return {
        "embed": Command(["embed", clip, "--model", str(model), quiet], digest_files),
        "export-app": Command(
            ["export-app", str(model), "--board", "teensy41", quiet], digest_files
        ),
        "embed --manifest": Command(
            [
                "embed",
                "--manifest",
                str(manifest),
                "--model",
                str(model),
                "--workers",
                "2",
                quiet,
            ],
            digest_rows,
            resumes=True,
            has_workers=True,
        ),
        "train-head": Command(
            ["train-head", str(model), "--manifest", str(manifest), quiet], digest_files
        ),
        "compare": Command(["compare", str(model), str(clips), quiet], digest_files),
        "convert": Command(convert, digest_files),
        "distill": Command(
            [
                *("distill", str(recipe), "--clips", str(clips)),
                *("--teacher-weights", str(teacher), quiet),
            ],
            digest_student,
            resumes=True,
        ),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Disturb the commands in turn; returns 0 if nothing went wrong."""
    parser = argparse.ArgumentParser(description="disturb commands at random moments")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", action="append", help="only this one; repeatable")
    parser.add_argument("-o", "--output", type=Path, help="JSON file of all outcomes")
    options = parser.parse_args(arguments)
    rng = random.Random(options.seed)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="edgel3-") as directory:
        scratch = Path(directory)
        disturber, commands = Disturber(scratch), make_commands(scratch)
        commands = {
            name: commands[name] for name in options.command or commands if name in commands
        }
        cases = [
            (name, fault)
            for name, command in commands.items()
            for fault in (*SIGNALS, *CALLS)
            if fault != "worker" or command.has_workers
        ]
        for name, command in commands.items():
            disturber.prepare(name, command)
        for number in range(options.runs):
            name, fault = cases[number % len(cases)]
            outcome = disturber.disturb(name, commands[name], fault, rng)
            outcomes.append(outcome)
            for wrong in outcome.wrong:
                print(f"{name}, {fault} at {outcome.moment:g}: {wrong}", flush=True)
    if options.output is not None:
        options.output.write_text(json.dumps([vars(each) for each in outcomes], indent=1))
    print_table(outcomes)
    return 1 if any(outcome.wrong for outcome in outcomes) else 0


def print_table(outcomes: Sequence[Outcome]) -> None:
    """Print, for each command and fault, how many runs succeeded, stopped, and went wrong."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for each in outcomes:
        kind = "wrong" if each.wrong else "succeeded" if each.returncode == 0 else "stopped"
        counts[each.command, each.fault, kind] += 1
    print("command\tfault\tsucceeded\tstopped\twrong")
    for command, fault in dict.fromkeys((each.command, each.fault) for each in outcomes):
        row = [counts[command, fault, kind] for kind in ("succeeded", "stopped", "wrong")]
        print(command, fault, *row, sep="\t")


if __name__ == "__main__":
    sys.exit(main())
