"""What a parser says of a mistyped command, in the words that every command uses."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from mnist_lightning.errors import PROGRAM

KINDS = {"int": "a whole number", "float": "a number"}


def plainly(message: str, options: Iterable[str], command: str) -> str:
    """Turn argparse's message into a line.

    Args:
        message: what it said.
        options: the names of the options there are, such as `data.batch_size`.
        command: the command, for the remedy.
    """
    see = f"all options: {PROGRAM} {command} --help"
    if found := re.fullmatch(r"unrecognized arguments: (\S+).*", message):
        option = found[1].split("=")[0]
        if not option.startswith("-"):
            return f"{option!r} is not an option; {see}"
        return f"there is no option {option}" + (close(option, options, "--") or f"; {see}")
    if found := re.fullmatch(r"the following arguments are required: (.*)", message):
        return f"{found[1]} is missing; {see}"
    if found := re.fullmatch(r"argument (\S+): not allowed with argument (\S+)", message):
        return f"both {found[2]} and {found[1]}: give one"
    if found := re.fullmatch(r"argument (\S+): expected (one|at least one) argument", message):
        return f"{found[1]} needs a value"
    if found := re.fullmatch(r"argument (\S+): invalid (\w+) value: '(.*)'", message):
        kind = KINDS.get(found[2], found[2])
        return f"{found[1]}: {found[3]} will not do; it takes {kind}"
    if found := re.fullmatch(
        r"argument (\S+): invalid choice: '?(.*?)'? \(.* from (.*)\)", message
    ):
        choices = found[3].replace("'", "").split(", ")
        return f"{found[1]}: {will_not_do(found[2], choices, ', '.join(choices))}"
    return " ".join(message.split())


def will_not_do(value: str, choices: Iterable[str], takes: str) -> str:
    """Say what is taken in place of a value, and which of the choices may be meant."""
    return f"{value} will not do; {hint(value, choices)}it takes {takes}"


def hint(word: str, choices: Iterable[str]) -> str:
    """Ask whether one of the choices is meant: by its letters alone, `one_cycle` is `OneCycle`."""
    by_letters = {choice.replace("_", "").lower(): choice for choice in choices}
    near = get_close_matches(word.replace("_", "").lower(), by_letters, n=1)
    return f"did you mean {by_letters[near[0]]}? " if near else ""


def close(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Name the option that may be meant, by its last part first; nothing where none is near.

    `--model.batch_size` is a mistake for `--data.batch_size`.
    """
    wanted, known = name.lstrip("-"), list(names)
    by_last = {option.rsplit(".", 1)[-1]: option for option in known}
    near = get_close_matches(wanted, known, n=1, cutoff=0.8)
    last = wanted.rsplit(".", 1)[-1]
    near = near or [by_last[match] for match in get_close_matches(last, by_last, n=1)]
    return f"; did you mean {prefix}{near[0]}?" if near else ""
