"""Text that leaves the program: for the terminal, as CSV, as Markdown.

File names, runs and checkpoints may come from strangers. Whatever they contain, it must not move
the cursor, change colors, reverse the line, open a link, become a formula or end a code block.
Every command prints by `say`, or by `show.line` and its tables.
"""

import csv
import io
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

# A spreadsheet takes a cell that begins so for a formula.
_FORMULA = (*"=+-@", *"\uff1d\uff0b\uff0d\uff20")  # the latter as wide as a Chinese letter
# What begins or ends something within a line of CommonMark, and GitHub's links without brackets.
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#|~&$!:@]|(?<=www)\.)", re.IGNORECASE)


def printable(text: str, keep: str = "") -> str:
    r"""Replace what cannot be seen by its escape, as `\x1b`, `\n`, `\u202e` or `\udc80`.

    That is: control characters, bidirectional overrides, zero-width and other format characters,
    line separators, and bytes of a file name that are no text. Letters and spaces of all scripts
    stay.

    Args:
        text: any string.
        keep: characters that stay nevertheless.
    """
    if text.isprintable():
        return text
    return "".join(each if _is_visible(each) or each in keep else _escaped(each) for each in text)


def _is_visible(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def _escaped(letter: str) -> str:
    # As `ascii` writes it, which includes half of a surrogate pair.
    return ascii(letter)[1:-1]


def say(text: str = "", end: str = "\n", file: TextIO | None = None, flush: bool = False) -> None:
    """Print text that may have several lines; nothing else in it controls the terminal."""
    stream = sys.stdout if file is None else file
    shown = printable(text, keep="\n")
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = shown.encode(encoding, "backslashreplace").decode(encoding)
    print(shown, end=end, file=stream, flush=flush)


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write a table as CSV, which people open in a spreadsheet.

    Text is made printable, and gets a leading apostrophe where it would become a formula. `--json`
    has the exact text.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    shown = printable(value)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def markdown(text: object) -> str:
    """Escape text for the prose of a Markdown document."""
    return _MARKDOWN.sub(r"\\\1", printable(str(text)))


def code_span(text: object) -> str:
    """Put text between backticks, more of them than it contains side by side."""
    shown = printable(str(text))
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    space = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return f"{fence}{space}{shown or ' '}{space}{fence}"
