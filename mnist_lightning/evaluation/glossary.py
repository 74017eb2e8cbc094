"""The glossary: the terms of documents, reports and messages, with their definitions.

`glossary.md` is a link to `docs/glossary.md`, its only source. A wheel contains a copy.
"""

import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_BLOCK = re.compile(r"^```\{glossary\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# One line for each name; then the definition, whose lines are indented.
_ENTRY = re.compile(r"((?:^\S.*\n)+)((?:^(?: .*)?\n)+)", re.MULTILINE)


class Entry(NamedTuple):
    """An entry of the glossary.

    Attributes:
        names: the names of the term; the first one is its main name, the others are synonyms.
        definition: without line breaks; backticks mark code.
    """

    names: tuple[str, ...]
    definition: str

    @property
    def anchor(self) -> str:
        """The name of the entry in a link: `term-` and its main name, as in the built documents."""
        return "term-" + re.sub(r"[^A-Za-z0-9]+", "-", self.names[0]).strip("-")


@cache
def entries() -> tuple[Entry, ...]:
    """Read all entries, in the order of the document."""
    text = files("mnist_lightning").joinpath("evaluation/glossary.md").read_text("utf-8")
    return tuple(
        Entry(tuple(names.splitlines()), " ".join(definition.split()))
        for block in _BLOCK.findall(text)
        for names, definition in _ENTRY.findall(block)
    )


def terms() -> dict[str, str]:
    """Return the definition of each term, also by its synonyms, in the order of the document."""
    return {name: entry.definition for entry in entries() for name in entry.names}


def find(term: str) -> Entry:
    """Return the entry of a term; if no name is the same, ignore upper and lower case.

    Raises:
        KeyError: the glossary does not contain the term.
    """
    exact = {name: entry for entry in entries() for name in entry.names}
    lower_case = {name.lower(): entry for name, entry in reversed(exact.items())}
    return exact.get(term) or lower_case[term.lower()]
