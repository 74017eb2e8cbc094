"""Run the code blocks of a document, and compare what they print with the documented output."""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e-?\d+)?")
SEPARATOR = "--- end of a block ---"

# Processors and numbers of threads add in different orders, so the last digits of floating-point
# numbers differ, and the results of a training differ more.
MAX_LOSS_RATIO = 0.25  # relative difference of a number in a line with the word "loss"
MAX_POINTS = 3.0  # difference of a percentage


class Example(NamedTuple):
    """A block of Python code, and the output that the document shows below it, if any."""

    code: str
    output: str


def blocks(document: Path, language: str) -> list[str]:
    """Return the code blocks of a document in a language."""
    fenced = FENCE.findall(document.read_text())
    return [content for marked, content in fenced if marked == language]


def examples(document: Path) -> list[Example]:
    """Return the blocks of Python code of a document, each with its documented output."""
    fenced = FENCE.findall(document.read_text())
    following = [*fenced[1:], ("", "")]
    return [
        Example(content, output if not next_language else "")
        for (language, content), (next_language, output) in zip(fenced, following, strict=True)
        if language == "python"
    ]


def run_examples(document: Path, folder: Path, timeout: float = 300) -> list[str]:
    """Run all Python blocks of a document in one new process; return what each prints."""
    code = "\n".join(
        f"{example.code}\nprint({SEPARATOR!r}, flush=True)" for example in examples(document)
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, (document, done.stderr)
    *printed, rest = done.stdout.split(f"{SEPARATOR}\n")
    assert not rest
    return printed


def assert_same_output(printed: str, documented: str) -> None:
    """Compare the output of a block with the documented one, with tolerances for numbers.

    The text and all integers must be equal. A percentage may differ by `MAX_POINTS`, a loss by
    `MAX_LOSS_RATIO`, another number by one unit of its last digit.
    """
    for line, expected_line in zip(printed.splitlines(), documented.splitlines(), strict=True):
        assert NUMBER.sub("#", line) == NUMBER.sub("#", expected_line)
        pairs = zip(NUMBER.findall(line), NUMBER.finditer(expected_line), strict=True)
        for number, match in pairs:
            difference = abs(value(number) - value(match[0]))
            assert difference <= tolerance(match), (line, expected_line)


def value(number: str) -> float:
    """Return the value of a number with thousands separators."""
    return float(number.replace(",", ""))


def tolerance(match: re.Match[str]) -> float:
    """Return how much a printed number may differ from a documented one."""
    digits, line = match[0], match.string
    if "." not in digits:
        return 0
    unit = 1.01 * 10.0 ** -len(digits.rpartition(".")[2])  # and the error of the conversion
    if re.match(r" ?%", line[match.end() :]):
        return MAX_POINTS
    if "loss" in line:
        return MAX_LOSS_RATIO * value(digits) + unit
    return unit
