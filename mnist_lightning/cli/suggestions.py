"""Turn the errors of argparse into one line, and suggest the closest name."""

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches

from mnist_lightning.errors import PROGRAM

MIN_CHARS = 3  # of a word that is searched for in longer names
# difflib's ratio
SIMILAR = 0.8  # of a word and the name of which it is a misspelling
RELATED = 0.6  # of a word and a name that may be intended
TYPE_NAMES = {"int": "an integer", "float": "a number"}


def format_argparse_error(message: str, options: Collection[str], command: str) -> str:
    """Turn argparse's message into a line.

    Args:
        message: argparse's message.
        options: the names of all options, such as `data.batch_size`.
        command: the command, for the fix.
    """
    see = f"all options: {PROGRAM} {command} --help"
    if match := re.fullmatch(r"unrecognized arguments: (\S+).*", message):
        option, equals, value = match[1].partition("=")
        if option == "--run" and "run" not in options:
            return f"give the RUN directly after the command: {PROGRAM} {command} RUN …"
        if option == "--seed" and "seed_everything" in options:
            return "unknown option --seed; one run: --seed_everything 7; several: --seeds 1..5"
        if option.endswith((".yaml", ".yml")) and "config" in options:
            return f"unexpected argument {option!r}; did you mean --config {option}?"
        if not option.startswith("-"):
            closest = closest_option(option, options, "--").rstrip("?") if equals else ""
            fix = f"{closest} {value}?" if closest else f"; {see}"
            return f"unexpected argument {match[1]!r}{fix}"
        return f"unknown option {option}" + (closest_option(option, options, "--") or f"; {see}")
    if match := re.fullmatch(r"the following arguments are required: (.*)", message):
        return f"{match[1]} is missing; {see}"
    if match := re.fullmatch(r"argument (\S+): not allowed with argument (\S+)", message):
        return f"both {match[2]} and {match[1]} are given; give only one"
    if match := re.fullmatch(r"argument (\S+): expected (one|at least one) argument", message):
        return f"{match[1]} needs a value"
    if match := re.fullmatch(r"argument (\S+): invalid (\w+) value: '(.*)'", message):
        expected = TYPE_NAMES.get(match[2], match[2])
        return f"{match[1]}: invalid value {match[3]}; expected {expected}"
    invalid_choice = r"argument (\S+): invalid choice: '?(.*?)'? \(.* from (.*)\)"
    if match := re.fullmatch(invalid_choice, message):
        choices = match[3].replace("'", "").split(", ")
        return f"{match[1]}: {invalid_value(match[2], choices, ', '.join(choices))}"
    return " ".join(message.split())


def invalid_value(value: str, choices: Iterable[str], expected: str) -> str:
    """Return the message for an invalid value: the closest choice, and what is expected."""
    return f"invalid value {value}; {introduce_choices(value, choices)}{expected}"


def introduce_choices(word: str, choices: Iterable[str]) -> str:
    """Return the text before a list of choices; suggest the closest choice if one is similar.

    Case and underscores do not count: `one_cycle`, `OneCycle`.
    """
    by_letters = {choice.replace("_", "").lower(): choice for choice in choices}
    closest = _closest(word.replace("_", "").lower(), by_letters)
    if closest:
        return f"did you mean {by_letters[closest]}? Valid: "
    return "expected one of: " if len(by_letters) > 1 else "expected "


def closest_option(name: str, names: Collection[str], prefix: str = "") -> str:
    """Suggest the closest option by its last part; return "" if none is close.

    `--model.batch_size` is a mistake for `--data.batch_size`.
    """
    group, _, last = name.lstrip("-").rpartition(".")
    siblings = [option for option in names if option.rpartition(".")[0] == group]
    for options, cutoff in ((siblings, SIMILAR), (names, RELATED)):
        by_last = {option.rpartition(".")[2]: option for option in options}
        if closest := _closest(last, by_last, cutoff):
            return f"; did you mean {prefix}{by_last[closest]}?"
    return ""


def _closest(word: str, names: Collection[str], cutoff: float = RELATED) -> str | None:
    """Return a similar name; else one that contains the word; else a less similar one."""
    longer = [name for name in names if len(word) >= MIN_CHARS and word in name]
    similar, related = (get_close_matches(word, names, 1, ratio) for ratio in (SIMILAR, cutoff))
    return next(iter([*similar, *longer, *related]), None)
