"""Import the classes that a user allowed, and nothing else from the working directory.

`python -m` puts the working directory first on the search path, where any file of a downloaded
folder could take the place of a module; the package removes it when it is imported. It is searched
only for classes that the user names.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any


def import_allowed(name: str) -> Any:
    """Import what the user allowed by its dotted name, also from the working directory.

    Raises:
        ImportError: there is no such module, or nothing of that name in it.
    """
    module, _, attribute = name.rpartition(".")
    try:
        with _working_directory_first(module.partition(".")[0]):
            return getattr(import_module(module), attribute)
    except (AttributeError, ValueError) as error:  # also: no module at all
        raise ImportError(str(error)) from None


@contextmanager
def _working_directory_first(module: str) -> Iterator[None]:
    """Search the working directory first if it has this module, and afterwards last.

    What the module imports later is found there too, but takes no other module's place.
    """
    here = str(Path.cwd())
    if not module or not (Path(here, module).is_dir() or Path(here, f"{module}.py").is_file()):
        yield
        return
    while here in sys.path:
        sys.path.remove(here)
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
        sys.path.append(here)


def import_paths(name: str) -> set[str]:
    """Return the names of an allowed class: the given one, and where it is defined."""
    try:
        found = import_allowed(name)
    except Exception:  # whoever uses the name reports what is wrong with it
        return {name}
    return {name, *_definition(found)}


def imported_paths(name: str) -> set[str]:
    """Return the names of what is imported already, as `import_paths` does; import nothing."""
    module, _, attribute = name.rpartition(".")
    return {name, *_definition(getattr(sys.modules.get(module), attribute, None))}


def _definition(found: Any) -> list[str]:
    module, qualified = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    return [f"{module}.{qualified}"] if module and qualified else []
