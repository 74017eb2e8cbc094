"""Each package imports only from the layers below it, and files have limited length."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import mnist_lightning
from mnist_lightning.networks.registry import ARCHITECTURES

PACKAGE = Path(mnist_lightning.__file__).parent
ROOT = PACKAGE.parent

# From top to bottom.
LAYERS = [
    ["__init__", "__main__"],
    ["cli"],
    ["training", "tuning", "deployment"],
    ["evaluation"],
    ["inference", "data"],
    ["networks", "runs", "preprocessing"],
    ["files", "distributed"],
    ["posix", "text"],
    ["errors"],
]
RANKS = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name below it."""
    named = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        named[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return named


def imported_modules(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, also within functions."""
    known, modules_found = modules(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mnist_lightning"):
            base = (node.module or "").removeprefix("mnist_lightning").strip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".strip(".")
                modules_found.add(inner if inner in known else base or "__init__")
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("mnist_lightning.") for alias in node.names)
    return modules_found


@pytest.mark.parametrize("name", modules())
def test_imports_point_downwards(name: str) -> None:
    package = name.split(".")[0]
    for other in imported_modules(modules()[name]):
        if other.split(".")[0] == package and package != name:
            continue  # within a package, whose cycles are found below
        assert RANKS[package] < RANKS[other.split(".")[0]], f"{name} imports {other}"


def test_no_module_imports_itself_through_others() -> None:
    graph = {name: imported_modules(path) for name, path in modules().items()}

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above, name])
        for other in graph[name]:
            visit(other, (*above, name))

    for name in graph:
        visit(name, ())


def test_only_one_module_needs_a_posix_system() -> None:
    special = r"\b(fcntl|resource|select|termios)\.\w|os\.(fork|killpg|setsid)|SIGKILL|SIGALRM|"
    special += r"signal\.alarm|O_NONBLOCK|O_NOFOLLOW|O_DIRECTORY|\"(fork|forkserver)\""
    users = {name for name, path in modules().items() if re.search(special, path.read_text())}
    assert users == {"posix"}


def test_the_root_has_few_files() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_the_diagram_of_contributing_has_these_layers() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    diagram = text.split("## How it is built\n\n```\n")[1].split("```")[0]
    layers = [
        re.findall(r"[a-z_]+", layer.strip("\n")[:46]) for layer in re.split(r"\n +│\n", diagram)
    ]
    assert layers == LAYERS


def test_every_module_is_in_the_list_of_contributing() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    listed = text.split("```\nmnist_lightning/\n")[1].split("\nconfigs/")[0]
    modules_found, package = set(), ""
    for line in listed.splitlines():
        name = line.split()[0]
        if name.endswith("/"):
            package = name
        else:
            modules_found.add(f"{package}{name}")
    architectures = {Path(inspect.getfile(cls)) for cls in ARCHITECTURES.values()}
    expected = {path for path in modules().values() if not path.stem.startswith("__")}
    assert {PACKAGE / module for module in modules_found} == expected - architectures


MAX_LINES, MAX_FUNCTION_LINES = 300, 50


@pytest.mark.parametrize("path", modules().values(), ids=str)
def test_no_file_and_no_function_is_too_long(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_LINES
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, functions):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, node.name


def test_only_these_modules_import_by_name() -> None:
    modules_found = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules().values()
        if re.search(r"import_module|importlib\.util|__import__|runpy", path.read_text())
    }
    # The names in the last one come from the user's command, never from a file.
    assert modules_found == {
        "__init__.py",
        "cli/list_options.py",
        "cli/main.py",
        "cli/verify.py",
        "networks/registry.py",
        "runs/imports.py",
    }
