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

    It may be in a class: `module.Outer.Inner`.

    Raises:
        ImportError: the module does not exist, or does not contain this name.
    """
    module, _, attribute = name.rpartition(".")
    try:
        with _working_directory_first(module.partition(".")[0]):
            return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name != module or "." not in module:
            raise
        return getattr(import_allowed(module), attribute, None)
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
    return {name, *_paths_of_class(value)}


def imported_paths(name: str) -> set[str]:
    """Return the same as `import_paths`, but only for modules that are already imported."""
    return {name, *_paths_of_class(find_imported(name))}


def find_imported(name: str) -> Any:
    """Return an object by dotted name; None if its module is not imported."""
    module, _, attribute = name.rpartition(".")
    return getattr(sys.modules.get(module), attribute, None)


def _paths_of_class(value: Any) -> list[str]:
    """Return the paths of a class: of its definition, and of the packages that export it."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not module or not name:
        return []
    parts = module.split(".")
    modules = [".".join(parts[:end]) for end in range(1, len(parts))]
    exported = [each for each in modules if getattr(sys.modules.get(each), name, None) is value]
    return [f"{each}.{name}" for each in (*exported, module)]
