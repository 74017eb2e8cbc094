"""Import the classes that a user allowed, and nothing else from the working directory.

`python -m` puts the working directory first on the search path, where a file of a downloaded folder
could replace a module. Therefore the package removes it during its own import. It is searched only
for classes that the user names.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any


def import_allowed(name: str) -> Any:
    """Import an object that the user allowed, by dotted name, also from the working directory.

    Raises:
        ImportError: the module does not exist, or does not contain this name.
    """
    module, _, attribute = name.rpartition(".")
    try:
        with _working_directory_first(module.partition(".")[0]):
            return getattr(import_module(module), attribute)
    except (AttributeError, ValueError) as error:  # also for an empty module name
        raise ImportError(str(error)) from None


@contextmanager
def _working_directory_first(module: str) -> Iterator[None]:
    """Search the working directory first if it contains this module, and last afterwards.

    Later imports of the module are also found there, but cannot replace other modules.
    """
    here = str(Path.cwd())
    if not module or not (Path(here, module).is_dir() or Path(here, f"{module}.py").is_file()):
        yield
        return
    sys.path[:] = [here, *(path for path in sys.path if path != here)]
    try:
        yield
    finally:
        sys.path.remove(here)
        sys.path.append(here)


def import_paths(name: str) -> set[str]:
    """Return the names of an allowed class: the given name and the path of its definition."""
    value = None
    with suppress(Exception):  # reported where the name is used
        value = import_allowed(name)
    return {name, *_definition(value)}


def imported_paths(name: str) -> set[str]:
    """Return the same as `import_paths`, but only for modules that are already imported."""
    module, _, attribute = name.rpartition(".")
    return {name, *_definition(getattr(sys.modules.get(module), attribute, None))}


def _definition(value: Any) -> list[str]:
    module, qualified = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    return [f"{module}.{qualified}"] if module and qualified else []
