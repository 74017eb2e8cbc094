"""Plain `nn.Module`s, one architecture a file, that map (B, 1, 28, 28) images to logits.

An architecture is the class that its file is named after: `classic_cnn.py` holds `ClassicCNN`.
It keeps each argument of its constructor as an attribute of the same name, as PyTorch's own
layers do, so that a checkpoint can say how to build it again.
"""

import inspect
import pkgutil
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from torch import nn

from mnist_lightning.errors import UserError


def _find_architectures() -> dict[str, type[nn.Module]]:
    found = {}
    for file in pkgutil.iter_modules(__path__):
        module = import_module(f"{__name__}.{file.name}")
        names = {name.lower(): name for name in vars(module)}
        architecture = getattr(module, names[file.name.replace("_", "")])
        found[architecture.__name__] = architecture
    return found


ARCHITECTURES = _find_architectures()


def describe(network: nn.Module) -> dict[str, Any]:
    """Say in primitives how to build `network` again: its `class_path` and `init_args`.

    `init_args` is None where the network does not keep its constructor's arguments; such a
    network has to be handed over by whoever loads the checkpoint.
    """
    parameters = inspect.signature(type(network)).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    complete = inspect.Parameter.VAR_POSITIONAL not in kinds and all(
        hasattr(network, name) for name in parameters
    )
    return {
        "class_path": f"{type(network).__module__}.{type(network).__qualname__}",
        "init_args": {name: getattr(network, name) for name in parameters} if complete else None,
    }


def build(description: dict[str, Any], also: Iterable[type[nn.Module]] = ()) -> nn.Module:
    """Build the network that `describe` described.

    Only the architectures of this package and the classes in `also` are considered: the
    description comes out of a file, and nothing that a file names is ever imported.

    Raises:
        UserError: the class is not among them, or its arguments were not kept.
    """
    known = [*ARCHITECTURES.values(), *also]
    by_path = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in known}
    path, init_args = description["class_path"], description["init_args"]
    if path not in by_path:
        raise UserError(
            f"the checkpoint holds a network of class {path}, which is none of "
            f"{', '.join(cls.__name__ for cls in known)}; pass its class or the network itself"
        )
    if init_args is None:
        raise UserError(
            f"the checkpoint does not say how to build its {path}: the class does not keep its "
            "constructor's arguments as attributes; pass the network itself"
        )
    return by_path[path](**init_args)
