"""`make prove-mutations`: without any one of its bounds checks, the library has an alarm.

Each check of the parser, the decoder and the node is removed by itself, and the proof about it must
then report an alarm that it does not report otherwise. The script prints a table and fails if a
proof stays green.
"""

import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prove import LIBRARY, PROOFS, Result, analyze, read_accepted

PACKED, WIRE, NODE = "edgel3_packed.c", "edgel3_wire.c", "edgel3_node.c"

# Six comparisons are not in the list, because no access depends on them in these files:
# - decoder, `length < sizeof decoder->frame`: a frame that fills the buffer breaks the protocol;
# - decoder, `in < length`: whether a zero follows the last block; there is room for it;
# - encoder, `== 255`: without it a length does not fit into its byte, and the frame is shorter;
# - node, `offset > expected`, `offset > node->received`: the differences that follow are then huge,
#   and the bytes are refused or ignored with another status;
# - parser, `tap >= taps`: the engine depends on it. The test that removes it runs the fuzzer.
# The proof, the source, a check that occurs once in it, and what takes its place.
CHECKS = (
    ("packed_header", PACKED, "bytes == NULL ||", ""),
    ("packed_header", PACKED, "size < EDGEL3_HEADER_BYTES)", "0)"),
    ("packed_header", PACKED, "stated > size", "0"),
    ("packed_header", PACKED, "|| convolutions > EDGEL3_MAX_CONVOLUTIONS", ""),
    (
        "packed_header",
        PACKED,
        "size < EDGEL3_HEADER_BYTES + convolutions * EDGEL3_RECORD_BYTES",
        "0",
    ),
    ("packed_record", PACKED, "|| conv->output_channels == 0", ""),
    ("packed_record", PACKED, "table % 4u != 0 ||", ""),
    ("packed_record", PACKED, "table > size ||", ""),
    ("packed_record", PACKED, "size - table < channels * CHANNEL_TABLE_BYTES ||", ""),
    ("packed_record", PACKED, "weights > size ||", ""),
    ("packed_record", PACKED, "size - weights < weight_bytes ||", ""),
    ("packed_record", PACKED, "weight_bytes < EDGEL3_WEIGHT_SLACK", "0"),
    (
        "packed_lists",
        PACKED,
        "(size_t)(end - cursor) < list_bytes(conv, negatives + positives)",
        "0",
    ),
    ("packed_lists", PACKED, "((negatives | positives) & 1u) != 0", "0"),
    ("packed_lists", PACKED, "shift < -31 || shift > 30", "0"),
    ("packed_dense", PACKED, "(size_t)(end - cursor) < taps", "0"),
    ("wire_decode", WIRE, "if (decoder->length < sizeof decoder->frame) decoder", "decoder"),
    ("wire_decode", WIRE, "size < EDGEL3_WIRE_HEAD_BYTES + 4u ||", ""),
    ("wire_decode", WIRE, "size > EDGEL3_WIRE_PACKET_BYTES ||", ""),
    ("wire_unstuff", WIRE, "if (block - 1u > length - in) return 0;", ""),
    ("node_open", NODE, "model->ears != NULL &&", ""),
    ("node_open", NODE, "model->ears_bytes >= edgel3_node_ears_bytes(frontend)", "1"),
    ("node_open", NODE, "edgel3_frontend_levels_bytes(frontend) > memory->idle_bytes ||", ""),
    ("node_open", NODE, "work_bytes > memory->window_bytes", "0"),
    ("node_open", NODE, "node->info.embedding > EDGEL3_NODE_MAX_EMBEDDING ||", ""),
    ("node_receive", NODE, "classes(node) > EDGEL3_NODE_MAX_CLASSES)", "0)"),
    ("node_open", NODE, "window_values(node) > memory->window_bytes ||", ""),
    ("node_receive", NODE, "offset > expected || length > expected - offset", "0"),
    ("node_receive", NODE, "|| length > expected - offset", ""),
    ("node_receive", NODE, "if (known >= length) return 0;", ""),
    ("node_log_mel", NODE, "count > EDGEL3_WIRE_MAX_BODY ||", ""),
    ("node_receive", NODE, "offset > window_values(node) ||", ""),
    ("node_receive", NODE, "count > window_values(node) - offset", "0"),
    ("node_receive", NODE, "classes(node) <= EDGEL3_NODE_MAX_CLASSES ?", "1 ?"),
    ("node_receive", NODE, "*text != 0 && length < room", "*text != 0"),
    (
        "node_receive",
        NODE,
        "if (node->failures != 0) return EDGEL3_WIRE_ERROR_ENGINE;\n  uint8",
        "uint8",
    ),
    ("node_receive", NODE, "if (node->failures != 0) return node->failures;", ""),
    (
        "node_data",
        NODE,
        "length - done < sizeof samples ? length - done : sizeof samples",
        "length - done",
    ),
)


def analyze_without(check: tuple[str, str, str, str]) -> Result:
    """Return the result of a proof about the library without a check."""
    proof, file, old, new = check
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "src"
        shutil.copytree(LIBRARY, library)
        text = (library / file).read_text()
        if text.count(old) != 1:
            return Result(proof, 0, "", (), f"found {text.count(old)} times in {file}")
        (library / file).write_text(text.replace(old, new))
        return analyze(PROOFS / f"{proof}.c", library)


def main() -> int:
    """Print a line for each check and return an exit status."""
    accepted = read_accepted()
    chosen = [check for check in CHECKS if not sys.argv[1:] or check[0] in sys.argv[1:]]
    green = 0
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for (proof, _, old, _), result in zip(
            chosen, threads.map(analyze_without, chosen), strict=True
        ):
            found = [alarm for alarm in result.alarms if (proof, alarm) not in accepted]
            state = result.error.splitlines()[-1] if result.error else "red" if found else "GREEN"
            green += not found
            print(f"{proof:14} {' '.join(old.split()):72} {state:6} {len(found):2}", flush=True)
    print(f"{len(chosen) - green} of {len(chosen)} checks raise an alarm if they are removed")
    return 1 if green else 0


if __name__ == "__main__":
    sys.exit(main())
