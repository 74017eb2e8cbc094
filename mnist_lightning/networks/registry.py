"""Find the architectures: plain `nn.Module`s that map (B, 1, 28, 28) images to logits.

An architecture is the class that its file is named after: `classic_cnn.py` holds `ClassicCNN`.
It keeps each argument of its constructor as an attribute of the same name, as PyTorch's own
layers do, so that a checkpoint can say how to build it again.
"""

import inspect
import pkgutil
import warnings
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from mnist_lightning import networks
from mnist_lightning.errors import UserError

# The modules of this package that hold no architecture.
OTHER_MODULES = {"calibration", "ensemble", "inspection", "registry"}


class UnknownNetworkError(UserError):
    """A checkpoint holds a network whose class is not known here."""


class WrongWeightsError(UserError):
    """Weights in a file are not those of the network that the file describes."""


def _find_architectures() -> dict[str, type[nn.Module]]:
    found: dict[str, type[nn.Module]] = {}
    for file in pkgutil.iter_modules(networks.__path__):
        if file.name in OTHER_MODULES:
            continue
        try:
            module = import_module(f"{networks.__name__}.{file.name}")
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise UserError(f"networks/{file.name}.py cannot be imported: {what}") from error
        names = {name.lower(): name for name in vars(module)}
        architecture = getattr(module, names.get(file.name.replace("_", ""), ""), None)
        if not (inspect.isclass(architecture) and issubclass(architecture, nn.Module)):
            wanted = file.name.title().replace("_", "")
            raise UserError(f"networks/{file.name}.py has to hold a class {wanted}, named as it is")
        found[architecture.__name__] = architecture
    return found


ARCHITECTURES = _find_architectures()
REGISTERED = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in ARCHITECTURES.values()}


def describe(network: nn.Module) -> dict[str, Any]:
    """Say in primitives how to build `network` again: its `class_path` and `init_args`.

    `init_args` is None where the network does not keep its constructor's arguments (or keeps
    something else under their names, say a layer); such a network has to be handed over by
    whoever loads the checkpoint.
    """
    parameters = inspect.signature(type(network)).parameters
    kept = vars(network)
    init_args = {name: kept[name] for name in parameters if _is_primitive(kept.get(name, ...))}
    return {
        "class_path": f"{type(network).__module__}.{type(network).__qualname__}",
        "init_args": init_args if init_args.keys() == parameters.keys() else None,
    }


def _is_primitive(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_primitive, value))
    return value is None or isinstance(value, bool | int | float | str)


def build(
    description: dict[str, Any],
    also: Iterable[type[nn.Module]] = (),
    weights: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Build the network that `describe` described, and give it its weights.

    Only the architectures of this package and the classes in `also` are considered: the
    description comes out of a file, and nothing that a file names is ever imported.

    Args:
        description: its `class_path` and `init_args`.
        also: the user's own classes.
        weights: by their names in the network; None leaves the initial ones.

    Raises:
        UserError: the class is not among them, its arguments were not kept or are invalid, or
            the weights are those of another network.
    """
    known = [*ARCHITECTURES.values(), *also]
    by_path = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in known}
    path, init_args = path_and_arguments(description)
    if path not in by_path:
        raise UnknownNetworkError(
            f"the checkpoint holds a network of class {path}, which is none of "
            f"{', '.join(cls.__name__ for cls in known)}; name its class: "
            "--model.network MODULE.CLASS, or in Python pass it, or the network itself"
        )
    if init_args is None:
        raise UserError(
            f"the checkpoint does not say how to build its {path}: the class does not keep its "
            "constructor's arguments as attributes; pass the network itself"
        )
    if weights is not None and path in ARCHITECTURES | REGISTERED:
        check_weights(description, weights)
    try:
        network = by_path[path](**init_args)
        if weights is not None:
            network.load_state_dict(dict(weights))
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise UserError(f"the network {path} cannot be built: {_first_line(error)}") from None
    return network


def check_weights(description: dict[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Compare weights with the architecture that is described, before memory is spent on it.

    Raises:
        WrongWeightsError: the description is invalid, or they are those of another network.
    """
    path, init_args = path_and_arguments(description)
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            network = (ARCHITECTURES | REGISTERED)[path](**(init_args or {})).eval()
            classes = network(torch.zeros(1, 1, 28, 28)).shape[-1]
        wanted = network.state_dict()
    except (TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
        raise WrongWeightsError(
            f"the network {path} cannot be built: {_first_line(error)}"
        ) from None
    if classes < 2:
        raise WrongWeightsError(f"the network {path} tells {classes} classes; it needs at least 2")
    shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if shapes != found:
        names = [name for name in shapes | found if shapes.get(name) != found.get(name)]
        raise WrongWeightsError(f"the weights are not those of {path} {init_args}: see {names[0]}")
    for name, tensor in weights.items():
        if wanted[name].is_floating_point() != tensor.is_floating_point():
            raise WrongWeightsError(f"{name} is {tensor.dtype}, which no weights are")


def path_and_arguments(description: Any) -> tuple[str, dict[str, Any] | None]:
    """Take a description from a file apart.

    Raises:
        UserError: it is none.
    """
    if isinstance(description, dict):
        path, init_args = description.get("class_path"), description.get("init_args")
        named = init_args is None or (
            isinstance(init_args, dict) and all(isinstance(name, str) for name in init_args)
        )
        if isinstance(path, str) and named:
            return path, init_args
    raise UserError("the file is damaged: it does not describe its network")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
