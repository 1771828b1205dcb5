"""The cycle model of the benchmark: llvm-mca's model of the core, with the corrections."""

from pathlib import Path

import cycles
import pytest
from cycles import Executed, cost, read_sections


def assemble(text: str) -> bytes:
    """Return the Thumb code of these halfwords."""
    return b"".join(int(word, 16).to_bytes(2, "little") for word in text.split())


# ldm r4, {r7-r12}
LDM = assemble("e894 1f80")
# umlal r0, r1, r6, r7; umlal r2, r3, r6, r7
MULTIPLY = assemble("fbe6 0107 fbe6 2307")
# cmp r0, r1; it ne; addne r3, #8
PREDICATED = assemble("4288 bf18 3308")


@pytest.mark.parametrize(
    ("code", "instructions", "expected"),
    [
        # Two registers a cycle.
        pytest.param(LDM, 1, 3, id="ldm"),
        # One multiply-accumulate a cycle.
        pytest.param(MULTIPLY, 2, 2, id="multiply"),
        # IT takes no slot, and a comparison issues beside an addition.
        pytest.param(PREDICATED, 3, 1, id="it"),
    ],
)
def test_a_block_takes_the_cycles_of_the_core(
    code: bytes, instructions: int, expected: float
) -> None:
    found = cost([Executed(code, 1000, 0)])
    assert found.instructions == 1000 * instructions
    # In the last of 50 iterations, nothing overlaps with the pipeline's end.
    assert found.cycles / 1000 == pytest.approx(expected, abs=0.25)


def test_an_unaligned_load_takes_three_cycles_more() -> None:
    aligned = cost([Executed(MULTIPLY, 1000, 0)])
    assert cost([Executed(MULTIPLY, 1000, 7)]).cycles == aligned.cycles + 21


def test_blocks_add_up() -> None:
    both = cost([Executed(LDM, 10, 0), Executed(MULTIPLY, 1000, 5)])
    alone = [cost([Executed(LDM, 10, 0)]), cost([Executed(MULTIPLY, 1000, 5)])]
    assert both.instructions == sum(each.instructions for each in alone)
    assert both.cycles == pytest.approx(sum(each.cycles for each in alone), abs=30)


def test_an_instruction_that_crosses_a_page_is_filled_up() -> None:
    """QEMU reports its first half only."""
    assert cost([Executed(MULTIPLY[:6], 1, 0)]).instructions == 2


def test_a_block_that_goes_on_in_the_next_page_is_one_block(tmp_path: Path) -> None:
    """QEMU ends a block at each KiB, and makes a block of an instruction that crosses the limit."""
    one, two = MULTIPLY[:4].hex(), MULTIPLY.hex()
    blocks = tmp_path / "blocks.txt"
    blocks.write_text(
        f"2040 7 1 {two}\n2048 7 2 {two}\n"  # ends at 2 KiB and goes on
        f"3062 9 0 {two}\n3070 9 0 {one}\n3074 9 3 {one}\n"  # an instruction crosses 3 KiB
        f"5116 4 0 {one}\n5120 5 0 {one}\n"  # the next block is also reached in another way
        f"6000 8 0 {one}\n6004 8 0 {one}\n"  # no page ends here
        "end\n"
    )
    (found,) = read_sections(blocks)
    assert sorted((len(each.code), each.executions, each.unaligned) for each in found) == [
        (4, 4, 0), (4, 5, 0), (4, 8, 0), (4, 8, 0), (16, 7, 3), (16, 9, 3),
    ]  # fmt: skip


def test_each_correction_has_a_source() -> None:
    assert all(what and source for what, source in cycles.CORRECTIONS)
