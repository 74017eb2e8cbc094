"""Turn the errors of argparse into one line, and suggest the name that was meant."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from mnist_lightning.errors import PROGRAM

SHORTEST = 3  # letters of a word that says something
ALIKE = 0.8  # difflib's ratio, of words that are but mistyped
MAYBE = 0.6  # of words that may be meant
KINDS = {"int": "a whole number", "float": "a number"}


def format_argparse_error(message: str, options: Iterable[str], command: str) -> str:
    """Turn argparse's message into a line.

    Args:
        message: what it said.
        options: the names of the options there are, such as `data.batch_size`.
        command: the command, for the remedy.
    """
    known = list(options)
    see = f"all options: {PROGRAM} {command} --help"
    if found := re.fullmatch(r"unrecognized arguments: (\S+).*", message):
        option = found[1].split("=")[0]
        if option == "--run" and "run" not in known:
            return f"a RUN comes right after the command: {PROGRAM} {command} RUN …"
        if not option.startswith("-"):
            return f"{option!r} is not an option; {see}"
        return f"there is no option {option}" + (close(option, known, "--") or f"; {see}")
    if found := re.fullmatch(r"the following arguments are required: (.*)", message):
        return f"{found[1]} is missing; {see}"
    if found := re.fullmatch(r"argument (\S+): not allowed with argument (\S+)", message):
        return f"both {found[2]} and {found[1]}: give one"
    if found := re.fullmatch(r"argument (\S+): expected (one|at least one) argument", message):
        return f"{found[1]} needs a value"
    if found := re.fullmatch(r"argument (\S+): invalid (\w+) value: '(.*)'", message):
        kind = KINDS.get(found[2], found[2])
        return f"{found[1]}: invalid value {found[3]}; expected {kind}"
    if found := re.fullmatch(
        r"argument (\S+): invalid choice: '?(.*?)'? \(.* from (.*)\)", message
    ):
        choices = found[3].replace("'", "").split(", ")
        return f"{found[1]}: {invalid_value(found[2], choices, ', '.join(choices))}"
    return " ".join(message.split())


def invalid_value(value: str, choices: Iterable[str], takes: str) -> str:
    """Say what is taken in place of a value, and which of the choices may be meant."""
    return f"invalid value {value}; {hint(value, choices)}expected {takes}"


def hint(word: str, choices: Iterable[str]) -> str:
    """Ask whether one of the choices is meant: by its letters alone, `one_cycle` is `OneCycle`."""
    by_letters = {choice.replace("_", "").lower(): choice for choice in choices}
    near = _nearest(word.replace("_", "").lower(), by_letters)
    return f"did you mean {by_letters[near]}? " if near else ""


def close(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Name the option that may be meant, by its last part first; nothing where none is near.

    `--model.batch_size` is a mistake for `--data.batch_size`.
    """
    wanted, known = name.lstrip("-"), list(names)
    group, _, last = wanted.rpartition(".")
    siblings = [option for option in known if option.rpartition(".")[0] == group]
    for options, least in ((siblings, ALIKE), (known, MAYBE)):
        by_last = {option.rpartition(".")[2]: option for option in options}
        if near := _nearest(last, by_last, least):
            return f"; did you mean {prefix}{by_last[near]}?"
    return ""


def _nearest(word: str, names: Iterable[str], least: float = MAYBE) -> str | None:
    """The name that is much alike, or that the word is part of, or that is less alike."""
    known = list(names)
    within = [name for name in known if len(word) >= SHORTEST and word in name]
    alike, less = (get_close_matches(word, known, n=1, cutoff=share) for share in (ALIKE, least))
    return next(iter([*alike, *within, *less]), None)
