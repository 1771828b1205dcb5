"""The command ``study``: the published compression tables, row by row."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from edgel3_tflm.cli.screen import JsonOption, QuietOption, new_table, open_screen
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.networks.catalogue import WIDTHS, find_depth, find_filters, find_plan
from edgel3_tflm.networks.published import (
    L3_PARAMETERS,
    PUBLISHED_RESULTS,
    PublishedResult,
    Task,
)
from edgel3_tflm.networks.sources import parse_weights_source

if TYPE_CHECKING:
    from edgel3_tflm.converters.compression.study import StudyRow

_DEPTHS = [each.name for each in PUBLISHED_RESULTS if each.kind == "depth"]
_TASKS: dict[Task, str] = {"avc": "AVC", "urbansound8k": "US8K", "esc50": "ESC-50"}


def study_command(
    sparsity: Annotated[
        list[str] | None,
        typer.Option(metavar="PERCENT", help="A published plan, as for convert; repeatable."),
    ] = None,
    embedding_layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="|".join(_DEPTHS), help="A published depth of the dense L3; repeatable."
        ),
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            metavar="|".join(WIDTHS),
            help="A published width of the dense L3, or its filters with commas between;"
            " repeatable.",
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="FILE|auto|published|bundled|generated",
            help="As for convert; auto, where there is neither the authors' file nor the stand-in:"
            " untrained ones made on the spot.",
        ),
    ] = "auto",
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Clips to calibrate with; those of the package if none."),
    ] = None,
    emulate: Annotated[
        bool | None,
        typer.Option(
            "--emulate/--no-emulate",
            help="Count a window's instructions in QEMU; left out: where compiler, QEMU and the"
            " extra device are at hand. Else they are estimated.",
        ),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Convert the published plans, depths and widths, and print them beside the published table.

    All 17 rows where none is chosen; each takes a minute or more.
    """
    with open_screen(quiet=quiet, as_json=as_json) as screen:
        from edgel3_tflm.converters.compression.study import (
            AGREEMENT_POINTS,
            STUDY,
            has_emulator,
            options_of,
            study,
        )
        from edgel3_tflm.device.estimate import INSTRUCTIONS_PER_MAC

        chosen = _choose(sparsity or [], embedding_layer or [], filters or [])
        source = parse_weights_source(weights)
        emulate = has_emulator() if emulate is None else emulate
        rows = []
        with screen.progress() as progress:

            def show(step: str, done: int, total: int) -> None:
                progress(f"{published.name}: {step}", done, total)

            for published in [each for each in STUDY if not chosen or each.name in chosen]:
                show("weights", 0, 0)
                options = options_of(published, source, calibration)
                rows.append(study(published, options, emulate=emulate, progress=show))
        notes = [
            f"reduction: kernel weights and biases that stay, by L3's {L3_PARAMETERS:,} parameters",
            "flash, arena: packed int8 model and the C engine's arena; plainly quantized",
            "instructions: one window of noise, counted on the emulated Cortex-M7"
            if emulate
            else "instructions: estimated, {:g} to {:g} a multiply-accumulate of the engine".format(
                *INSTRUCTIONS_PER_MAC
            ),
            *(
                f"{kind} weights: {', '.join(names)}"
                for kind in sorted({row.weights for row in rows})
                if (names := [row.published.name for row in rows if row.weights == kind])
            ),
        ]
        if missed := [row.published.name for row in rows if not row.agrees]:
            notes.append(
                f"* {', '.join(missed)}: more than {AGREEMENT_POINTS:g} points from the published"
                " reduction, which no count of such a network's weights gives"
            )
        screen.show(
            {"rows": [row.to_json() for row in rows], "notes": notes},
            rows_table(rows),
            *map(Text, notes),
            published_table([row.published for row in rows]),
            Text("published: the authors' float networks; accuracies behind fine-tuning (before)"),
        )


def _choose(sparsities: list[str], depths: list[str], widths: list[str]) -> set[str]:
    """Names of the published rows that are meant."""
    names = {find_plan(each).label for each in sparsities}
    for depth in depths:
        find_depth(depth)
        if depth not in _DEPTHS:
            raise EdgeL3Error(
                f"no published row takes the embedding from {depth}: expected one of"
                f" {', '.join(_DEPTHS)}; convert takes any"
            )
        names.add(depth)
    for width in widths:
        found = [name for name, filters in WIDTHS.items() if filters == find_filters(width)]
        if not found:
            raise EdgeL3Error(
                f"no published row has the filters {width}: expected one of {', '.join(WIDTHS)};"
                " convert takes any"
            )
        names |= set(found)
    return names


def rows_table(rows: "list[StudyRow]") -> Table:
    """Tabulate what was counted, beside the published reduction."""
    table = new_table(
        "row",
        "reduc-\ntion %",
        "pub-\nlished",
        "flash\nbytes",
        "arena\nbytes",
        "MMAC",
        "instructions\nmillions",
    )
    for row in rows:
        low, high = (f"{each / 1e6:,.0f}" for each in (row.instructions.low, row.instructions.high))
        table.add_row(
            row.published.name,
            f"{row.reduction_percent:.2f}",
            f"{row.published.reduction_percent:.2f}{' ' if row.agrees else '*'}",
            f"{row.flash_bytes:,}",
            f"{row.arena_bytes:,}",
            f"{row.packed_macs / 1e6:,.0f}",
            low if low == high else f"{low} to {high}",
        )
    return table


def published_table(published: list[PublishedResult]) -> Table:
    """Tabulate the published rows."""
    table = new_table(
        "published", "reduction\n%", "MB", *(f"{title}\n%" for title in _TASKS.values())
    )
    for each in published:
        table.add_row(
            each.name,
            f"{each.reduction_percent:.2f}",
            "-" if each.megabytes is None else f"{each.megabytes:.3f}",
            *(_score(each, task) for task in _TASKS),
        )
    return table


def _score(published: PublishedResult, task: Task) -> str:
    score = published.score(task)
    if score is None:
        return "-"
    before = score.before_fine_tuning
    return f"{score.value:g}" + ("" if before is None else f" ({before:g})")
