"""The glossary: the terms of documents, reports and messages, with their definitions.

`glossary.md` is a link to `docs/glossary.md`, its only source. A wheel contains a copy.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from markupsafe import Markup, escape

from mnist_lightning.text import printable

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
    wanted = term.lower()
    singular = wanted.removesuffix("s")
    return exact.get(term) or lower_case[wanted if wanted in lower_case else singular]


class TermLinks:
    """Links the terms in the texts of a page to their definitions, and remembers these terms.

    Args:
        names: the terms to link, by any of their names; upper and lower case are equal.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._entries = {name.lower(): find(name) for name in names}
        longest_first = sorted(map(re.escape, self._entries), key=len, reverse=True)
        self._pattern = re.compile(rf"\b({'|'.join(longest_first)})s?\b", re.IGNORECASE)
        self._used: set[Entry] = set()

    def link(self, text: str) -> Markup:
        """Return a text as HTML, in which the first occurrence of each term is a link.

        White space becomes single spaces; a plural with `s` counts as the term.
        """
        linked: set[Entry] = set()

        def replace(match: re.Match[str]) -> str:
            entry = self._entries[match[1].lower()]
            if entry in linked:
                return match[0]
            linked.add(entry)
            return f'<a class="term" href="#{entry.anchor}">{match[0]}</a>'

        html = self._pattern.sub(replace, str(escape(printable(" ".join(text.split())))))
        self._used |= linked
        return Markup(html)

    def definitions(self) -> list[tuple[Entry, Markup]]:
        """Return the linked terms with their definitions as HTML, in alphabetical order."""
        return definitions(entry.names[0] for entry in self._used)


def definitions(names: Iterable[str]) -> list[tuple[Entry, Markup]]:
    """Return terms with their definitions as HTML, in alphabetical order."""
    named = sorted(map(find, names), key=lambda entry: entry.names[0].lower())
    return [(entry, _code(entry.definition)) for entry in named]


def _code(text: str) -> Markup:
    """Return a definition as HTML: text between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
