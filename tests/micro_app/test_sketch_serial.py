"""The sketch's serial port when its host stops reading."""

import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.boards.arduino import STUBS, WARNINGS, sketch_macros, sources_of

from edgel3_tflm.converters.export.app import export_app
from edgel3_tflm.converters.export.board_files import SKETCH_NAME
from edgel3_tflm.device.boards import find_board
from edgel3_tflm.device.wire import Command, Decoder, Info, Packet, encode
from edgel3_tflm.runtime.deployment import Deployment

MAIN = Path(__file__).parents[1] / "native" / "sketch_host_main.cpp"


@pytest.mark.parametrize("name", ["giga_r1_m7", "teensy41"])
def test_a_host_that_does_not_read_holds_the_sketch_up_for_two_seconds(
    name: str, tiny_int8: Deployment, tmp_path: Path
) -> None:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    board = find_board(name)
    export_app(tiny_int8, board, tmp_path / "app")
    sketch = tmp_path / "app" / SKETCH_NAME
    options = [*WARNINGS, "-I", sketch, "-I", STUBS, *sketch_macros(board), "-c"]
    objects = []
    for source in [*sources_of(sketch), MAIN]:
        if source.suffix in (".S", ".cc"):
            continue
        objects.append(tmp_path / f"{source.name}.o")
        is_c = source.suffix == ".c"
        compiler = ["gcc"] if is_c else ["g++", "-x", "c++", "-include", "Arduino.h"]
        subprocess.run([*compiler, *options, source, "-o", objects[-1]], check=True)
    subprocess.run(["g++", *objects, "-lm", "-o", tmp_path / "sketch"], check=True)
    request = encode(Packet(Command.INFO, 7))

    done = subprocess.run(
        [tmp_path / "sketch", request.hex()], capture_output=True, text=True, timeout=600
    )

    assert done.stderr == ""
    taken, spent_ms = done.stdout.split()
    # Two seconds from the last byte that was taken. Teensy's Serial.write() adds up to 120 ms at
    # each end.
    assert 2000 <= int(spent_ms) <= 2000 + 241
    # The host took ten bytes of an answer. A zero byte ends them; a whole answer follows.
    assert bytes.fromhex(taken)[10] == 0
    decoder = Decoder()
    (answer,) = decoder.feed(bytes.fromhex(taken))
    assert decoder.dropped == 1
    assert Info.parse(answer.body).board == board.title
