"""The command ``study``: the published networks beside their published figures."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from edgel3_tflm.cli.options import CalibrationOption
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
            help="A published width of the dense L3, or its filters separated by commas;"
            " repeatable.",
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="FILE|auto|published|bundled|generated",
            help="As for convert, but auto takes generated weights if there is neither the authors'"
            " file nor the stand-in.",
        ),
    ] = "auto",
    calibration: CalibrationOption = None,
    emulate: Annotated[
        bool | None,
        typer.Option(
            "--instructions/--no-instructions",
            help="Count the instructions of one window in QEMU, too. Default: if the compiler, QEMU"
            " and the extra device are installed.",
        ),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Convert the published plans, depths and widths; show their figures and the published ones.

    Default: all 17 rows. Each takes a minute or more.
    """
    with open_screen(quiet=quiet, as_json=as_json) as screen:
        from edgel3_tflm.converters.compression.study import (
            AGREEMENT_POINTS,
            STUDY,
            has_emulator,
            options_of,
            study,
        )

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
            f"reduction: kernel weights and biases that were removed, of L3's {L3_PARAMETERS:,}"
            " parameters",
            "flash, arena: the packed int8 model and the arena of the C engine, quantized without a"
            " search",
            "cycles: modelled from the loops of the kernels, with the arena of the fastest ones, if"
            " no row of an activation map is zero; without waits for memory",
            *(["instructions: one window of noise, on the emulated Cortex-M7"] if emulate else []),
            *(
                f"{kind} weights: {', '.join(names)}"
                for kind in sorted({row.weights for row in rows})
                if (names := [row.published.name for row in rows if row.weights == kind])
            ),
        ]
        if missed := [row.published.name for row in rows if not row.agrees]:
            notes.append(
                f"* {', '.join(missed)}: more than {AGREEMENT_POINTS:g} points from the published"
                " reduction, which no count of such a network's weights yields"
            )
        screen.show(
            {"rows": [row.to_json() for row in rows], "notes": notes},
            rows_table(rows),
            *map(Text, notes),
            published_table([row.published for row in rows]),
            Text(
                "published: the authors' float networks; accuracies after fine-tuning (before it)"
            ),
        )


def _choose(sparsities: list[str], depths: list[str], widths: list[str]) -> set[str]:
    """Return the names of the chosen published rows.

    Raises
    ------
    EdgeL3Error
        If a name or a list of filters is not published.
    """
    names = {find_plan(each).label for each in sparsities}
    for depth in depths:
        find_depth(depth)
        if depth not in _DEPTHS:
            raise EdgeL3Error(
                f"no published row takes the embedding from {depth}: expected one of"
                f" {', '.join(_DEPTHS)}; use convert for other layers"
            )
        names.add(depth)
    for width in widths:
        found = [name for name, filters in WIDTHS.items() if filters == find_filters(width)]
        if not found:
            raise EdgeL3Error(
                f"no published row has the filters {width}: expected one of {', '.join(WIDTHS)};"
                " use convert for other filters"
            )
        names |= set(found)
    return names


def rows_table(rows: "list[StudyRow]") -> Table:
    """Return a table of the counted figures, with the published reduction."""
    is_counted = any(row.instructions is not None for row in rows)
    table = new_table(
        "row",
        "reduc-\ntion %",
        "pub-\nlished",
        "flash\nbytes",
        "arena\nbytes",
        "MMAC",
        "M\ncycles",
        *(["M in-\nstruc-\ntions"] if is_counted else []),
    )
    for row in rows:
        table.add_row(
            row.published.name,
            f"{row.reduction_percent:.2f}",
            f"{row.published.reduction_percent:.2f}{' ' if row.agrees else '*'}",
            f"{row.flash_bytes:,}",
            f"{row.arena_bytes:,}",
            f"{row.packed_macs / 1e6:,.0f}",
            f"{row.cycles / 1e6:,.0f}",
            *([f"{(row.instructions or 0) / 1e6:,.0f}"] if is_counted else []),
        )
    return table


def published_table(published: list[PublishedResult]) -> Table:
    """Return a table of the published rows."""
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
