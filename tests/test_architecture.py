"""Imports point one way: each module may import only from the floors below its own."""

import ast
import re
from pathlib import Path

import pytest

import mnist_lightning

PACKAGE = Path(mnist_lightning.__file__).parent

# From the roof to the ground. Within a floor a module may import those named after it.
FLOORS = [
    ["completion", "__main__"],
    [
        "cli",
        "scoring",
        "verify",
        "inventory",
        "listing",
        "comparison",
        "standings",
        "search",
        "export",
        "model_card",
        "reporting",
        "readings",
        "web",
        "predict",
    ],
    ["refusals", "training"],
    [
        "resumability",
        "parsing",
        "trust",
        "registry",
        "run_trainer",
        "epoch_loop",
        "fit_loop",
        "parse_errors",
        "options",
        "mistakes",
        "show",
    ],
    ["callbacks", "run_logger"],
    ["classifier", "data", "evaluation"],
    [
        "loss_and_accuracy",
        "optimizer_state",
        "step_losses",
        "schedules",
        "ensemble",
        "networks",
        "reading_process",
        "images",
        "image_limits",
        "ink",
        "ruled_lines",
        "pieces",
        "runs",
        "tables",
        "templates",
    ],
    ["imports", "own_directories", "files", "processes", "text", "errors", "__init__"],
]
RANKS = {name: (floor, place) for floor, row in enumerate(FLOORS) for place, name in enumerate(row)}


ROOT = Path(__file__).parent.parent


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below it."""
    named = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        named[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return named


def rank(name: str) -> tuple[int, int]:
    """The floor and the place of a module: its own, or that of the room it is in."""
    return RANKS[name] if name in RANKS else RANKS[name.split(".")[0]]


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, at its top or later."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mnist_lightning"):
            base = (node.module or "").removeprefix("mnist_lightning").strip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".strip(".")
                found.add(inner if inner in known else base or "__init__")
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("mnist_lightning.") for alias in node.names)
    return found


@pytest.mark.parametrize("name", [name for name in modules() if name != "__init__"])
def test_imports_point_downwards(name: str) -> None:
    room = name.split(".")[0]
    for other in imported(modules()[name]):
        if other.split(".")[0] == room and not {name, other} & RANKS.keys():
            continue  # within a room; its cycles are found below
        assert rank(name) < rank(other), f"{name} imports {other}"


def test_no_module_imports_itself_through_others() -> None:
    graph = {name: imported(path) for name, path in modules().items() if name != "__init__"}

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above, name])
        for other in graph.get(name, ()):
            visit(other, (*above, name))

    for name in graph:
        visit(name, ())


def test_the_diagram_of_the_readme_has_these_floors() -> None:
    diagram = (
        (ROOT / "README.md").read_text().split("## How it is built\n\n```\n")[1].split("```")[0]
    )
    drawn = [
        {name for line in floor.splitlines() for name in re.findall(r"[a-z_]+", line[:57])}
        for floor in re.split(r"\n +│\n", diagram)
    ]
    assert drawn == [{name for name in row if name != "__init__"} for row in FLOORS]


def test_every_module_is_in_the_list_of_contributing() -> None:
    listed = (
        (ROOT / "CONTRIBUTING.md").read_text().split("```\nmnist_lightning/\n")[1].split("```")[0]
    )
    names = set(re.findall(r"(\w+)(?:\.py|/)", listed))
    for path in modules().values():
        rooms = path.relative_to(PACKAGE).parts
        if path.stem != "__init__" and "networks" not in rooms:  # those speak for themselves
            assert path.stem in names, path


def test_every_module_has_its_floor() -> None:
    assert {name.split(".")[0] for name in modules()} == {name.split(".")[0] for name in RANKS}
