"""`make prove`: Frama-C's analysis Eva shows that the C library has no run-time error.

Each C file of this folder is a proof. It calls functions of the library with every input that its
comment describes. Eva follows all of them at once and reports an alarm for each access out of
bounds, overflow of a signed number or other undefined behaviour that it cannot exclude. This
script fails on every alarm that `accepted.txt` does not list, and on every entry of that file that
is no longer needed. `README.md` in the folder above says what this shows and what it does not.

A line `// eva: OPTIONS` of a proof has further options for it.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PROOFS = Path(__file__).parent
LIBRARY = PROOFS.parent / "lib" / "edgel3" / "src"
ACCEPTED = PROOFS / "accepted.txt"

# As on a Cortex-M7, integers and pointers have 32 bits, and the first byte of a number is its
# lowest. Infinity and NaN are ordinary values.
OPTIONS = (
    *("-machdep", "gcc_x86_32", "-warn-special-float", "none"),
    *("-eva", "-eva-no-show-progress", "-eva-msg-key=-initial-state,-final-states"),
    # Follow each iteration of a loop and each value of a `split` annotation by itself.
    *("-eva-auto-loop-unroll", "100000", "-eva-split-limit", "100000", "-eva-plevel", "100000"),
    *("-eva-interprocedural-splits", "-eva-split-return", "auto"),
)


@dataclass(frozen=True)
class Result:
    """What Eva says about a proof."""

    name: str
    seconds: float  #: of wall time
    reached: str  #: statements reached, of those in the functions that were analyzed
    alarms: tuple[str, ...]  #: each in one line, with the name of the source
    error: str  #: why there is no result; empty if there is one


def read_options(proof: Path) -> list[str]:
    """Return the further options of a proof."""
    return [
        option
        for line in re.findall(r"^// eva: (.*)$", proof.read_text(), re.MULTILINE)
        for option in shlex.split(line)
    ]


def read_alarms(log: str) -> tuple[str, ...]:
    """Return the alarms of a log, sorted. Alarms that differ only in their line are one."""
    joined = re.sub(r"\n +", " ", log)
    found = re.findall(r"^\[eva:alarm\] (\S+?):\d+: Warning: (.*)$", joined, re.MULTILINE)
    return tuple(
        sorted({f"{Path(source).name}: {' '.join(text.split())}" for source, text in found})
    )


def analyze(proof: Path, library: Path = LIBRARY, limit_s: float = 600.0) -> Result:
    """Run Eva on a proof, with the sources of the library in the folder ``library``."""
    share = subprocess.run(
        ["frama-c", "-print-share-path"], capture_output=True, text=True, check=True
    ).stdout.strip()
    command = [
        *("frama-c", *OPTIONS, *read_options(proof)),
        f"-cpp-extra-args=-I{library} -I{share}/libc",
        str(proof),
    ]
    start = time.monotonic()
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return Result(proof.stem, limit_s, "", (), f"not finished after {limit_s:.0f} s")
    log = ran.stdout + ran.stderr
    reached = re.search(r"(\d+) statements reached \(out of (\d+)\)", log)
    if ran.returncode != 0 or reached is None or "Degeneration" in log:
        lines = [line for line in log.splitlines() if line.strip()]
        return Result(proof.stem, time.monotonic() - start, "", (), "\n".join(lines[-8:]))
    return Result(
        proof.stem,
        time.monotonic() - start,
        f"{reached[1]} of {reached[2]}",
        read_alarms(log),
        "",
    )


def read_accepted() -> set[tuple[str, str]]:
    """Return pairs of the name of a proof and an accepted alarm."""
    lines = (line.strip() for line in ACCEPTED.read_text().splitlines())
    pairs = (line.split(": ", 1) for line in lines if line and not line.startswith("#"))
    return {(name, alarm) for name, alarm in pairs}


def main() -> int:
    """Analyze the proofs and return an exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = sorted(path.stem for path in PROOFS.glob("*.c"))
    parser.add_argument("proofs", nargs="*", choices=[[], *names], help="default: all")
    chosen = parser.parse_args().proofs or names
    accepted = {pair for pair in read_accepted() if pair[0] in chosen}
    found = set()
    failed = False
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for result in threads.map(analyze, (PROOFS / f"{name}.c" for name in chosen)):
            print(f"{result.name:18} {result.seconds:5.0f} s  statements: {result.reached}")
            for line in result.error.splitlines():
                print(f"  {line}")
            found |= {(result.name, alarm) for alarm in result.alarms}
            failed = failed or bool(result.error)
    for name, alarm in sorted(found - accepted):
        print(f"alarm in {name}: {alarm}")
    for name, alarm in sorted(accepted - found):
        print(f"no longer in {name}: remove this entry of {ACCEPTED.name}: {alarm}")
    if failed or found != accepted:
        return 1
    print(f"no run-time error in {len(chosen)} proofs, with {len(accepted)} accepted alarms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
