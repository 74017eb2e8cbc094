"""The command `explain`: the definitions of the glossary in the terminal."""

import subprocess
import sys

import pytest

from mnist_lightning.evaluation import glossary
from tests.conftest import Command


@pytest.mark.parametrize("words", [["log", "interval"], ["log_interval"], ["Log Interval"]])
def test_the_definition_of_a_term_is_printed_also_for_a_synonym(
    command: Command, words: list[str]
) -> None:
    result = command("explain", *words)
    assert result.status == 0
    names, *definition = result.out.splitlines()
    assert names == "log interval, log_interval, log_every_n_steps"
    text = " ".join(line.strip() for line in definition)
    assert text == glossary.terms()["log interval"]


@pytest.mark.parametrize("words", ["Tensor image", "activation functions", "seeds", "ECE"])
def test_a_term_is_found_by_its_plural_and_by_each_name(command: Command, words: str) -> None:
    result = command("explain", *words.split())
    assert result.status == 0
    assert words.lower().removesuffix("s") in result.out.splitlines()[0].lower()


def test_without_a_term_all_terms_are_listed_in_alphabetical_order(command: Command) -> None:
    *lines, example = command("explain").out.splitlines()
    assert example == "explain one: python -m mnist_lightning explain seed"
    assert all(len(line) <= 100 for line in lines)
    listed = "\n".join(lines)
    names = [entry.names[0] for entry in glossary.entries()]
    assert all(name in listed for name in names)
    first = [line.split("  ")[0] for line in lines]
    assert first == sorted(names, key=str.lower)[: len(lines)]


@pytest.mark.parametrize("words", [[], ["overfitting"]])
def test_long_lines_are_wrapped_on_a_narrow_terminal(
    command: Command, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = command("explain", *words).out.splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) <= 60


def test_the_command_imports_neither_torch_nor_lightning() -> None:
    script = (
        "import sys; from mnist_lightning.cli.main import main; main(['explain', 'seed']); "
        "sys.exit(bool({'torch', 'lightning', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
