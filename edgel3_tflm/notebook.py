"""HTML tables that notebooks show for results."""

from collections.abc import Iterable, Sequence
from html import escape


def html_table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    notes: Iterable[str] = (),
) -> str:
    """Return an HTML table. All texts are escaped, because names come from outside.

    Parameters
    ----------
    caption : str
    columns : sequence of str
    rows : iterable of sequence of str
    notes : iterable of str
        Paragraphs below the table.
    """

    def row(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return (
        f"<table><caption>{escape(caption)}</caption><thead>{row(columns, 'th')}</thead>"
        f"<tbody>{''.join(row(cells, 'td') for cells in rows)}</tbody></table>"
        + "".join(f"<p>{escape(note)}</p>" for note in notes)
    )
