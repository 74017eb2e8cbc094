"""Text that leaves the program: for the terminal, as CSV, as Markdown, from templates.

File names, runs and checkpoints may come from untrusted sources. Their text must not move the
cursor, change colors, reverse the line, open a link, become a formula or end a code block.
Every command prints with `say`, or with `console.show_line` and its tables.
"""

import csv
import io
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

# A spreadsheet interprets a cell with one of these first characters as a formula.
_FORMULA = (*"=+-@", *"\uff1d\uff0b\uff0d\uff20")  # the last four are full-width
# Characters with a meaning within a line of CommonMark, and GitHub's links without brackets.
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#|~&$!:@]|(?<=www)\.)", re.IGNORECASE)


def printable(text: str, keep: str = "") -> str:
    r"""Replace invisible characters by escapes such as `\x1b`, `\n`, `\u202e` or `\udc80`.

    These are control characters, bidirectional overrides, zero-width and other format characters,
    line separators, and undecodable bytes of a file name. Letters and spaces of all scripts stay.

    Args:
        text: any string.
        keep: characters that are not replaced.
    """
    if text.isprintable():
        return text
    # `ascii` also escapes half of a surrogate pair.
    escapes = {
        ord(char): ascii(char)[1:-1]
        for char in set(text).difference(keep)
        if not char.isprintable() and unicodedata.category(char) != "Zs"
    }
    return text.translate(escapes) if escapes else text


def say(text: str = "", end: str = "\n", file: TextIO | None = None, flush: bool = False) -> None:
    """Print text of one or more lines; escape all other control characters."""
    stream = sys.stdout if file is None else file
    visible = printable(text, keep="\n")
    encoding = getattr(stream, "encoding", None) or "utf-8"
    visible = visible.encode(encoding, "backslashreplace").decode(encoding)
    print(visible, end=end, file=stream, flush=flush)


def as_csv(columns: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> str:
    """Format a table, or more of its rows (columns: None), as CSV that is safe in a spreadsheet.

    Text is made printable. Text that would become a formula gets a leading apostrophe. `--json`
    contains the exact text.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if columns is not None:
        writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    visible = printable(value)
    return f"'{visible}" if visible.lstrip().startswith(_FORMULA) else visible


def markdown(text: object) -> str:
    """Escape text for the prose of a Markdown document."""
    return _MARKDOWN.sub(r"\\\1", printable(str(text)))


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: str = "") -> str:
    """Format a table in GitHub's Markdown; escape the texts, so that each row is one line.

    Args:
        columns: the headings.
        rows: the texts of the cells.
        numbers: a character per column; `>` aligns a column to the right.
    """
    sides = ["---:" if side == ">" else "---" for side in numbers.ljust(len(columns))]
    lines = [columns, sides, *rows]
    escaped = [line if line is sides else [markdown(cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def code_span(text: object) -> str:
    """Put text between backticks: one more than its longest sequence of backticks."""
    visible = printable(str(text))
    fence = "`" * (1 + max(map(len, re.findall("`+", visible)), default=0))
    space = " " if visible.startswith("`") or visible.endswith("`") or not visible.strip() else ""
    return f"{fence}{space}{visible or ' '}{space}{fence}"


def plural(count: int, word: str) -> str:
    """Format a number of things: `1 trial`, `1,200 trials`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def join_words(words: Sequence[str], last: str = "and") -> str:
    """Join words: `a`, `a and b`, `a, b and c`; `last` is the word before the last one."""
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def shorten(text: str, count: int = 500) -> str:
    """Return a text of at most `count` characters, with `…` in place of its middle."""
    half = count // 2
    return text if len(text) <= count else f"{text[: half - 1]}…{text[-half:]}"


def percent(share: float | None, digits: int = 2, missing: str = "-") -> str:
    """Format a fraction, 0 to 1, as a percentage; return `missing` for None."""
    return missing if share is None else f"{100 * share:.{digits}f} %"


def confidence(share: float) -> str:
    """Format a probability as a percentage; never as 100.0 or 0.0 %, which promise too much."""
    if share >= 0.9995:
        return ">99.9 %"
    return "<0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def fill_template(path: str, /, **values: Any) -> str:
    """Fill a template; a missing value is an error.

    Args:
        path: relative to the package. In `.html`, values are escaped unless marked as safe. In
            `.md`, filters escape them: `md` in prose, `code` between backticks, `repr` in Python.
        values: the values of the template's variables.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("mnist_lightning", ""),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: printable(value, keep="\n") if type(value) is str else value,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "md": markdown, "code": code_span, "repr": repr}
    return environment.get_template(path).render(values)


def duration(seconds: float) -> str:
    """Format a duration as `0:21` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
