"""Find the architectures: plain `nn.Module`s that map (B, 1, 28, 28) images to logits.

An architecture is the class that its file is named after: `classic_cnn.py` holds `ClassicCNN`.
It stores each constructor argument as an attribute of the same name, as PyTorch's layers do.
A checkpoint stores these attributes, so that the network can be built again. For other networks,
which a class or a function of the user creates, it stores the arguments of the configuration.
"""

import copy
import inspect
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from mnist_lightning import networks
from mnist_lightning.errors import UserError

# The modules of this package that contain no architecture.
OTHER_MODULES = {"calibration", "ensemble", "inspection", "registry"}

# What the code of a network raises for arguments or images that it does not accept.
NETWORK_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(RuntimeError, TypeError, ValueError),
)
MAX_CLASSES = 200  # each digit of a page gets a probability for each class


class WrongWeightsError(UserError):
    """The weights in a file do not match the network that the file describes."""


def _find_architectures() -> dict[str, type[nn.Module]]:
    architectures: dict[str, type[nn.Module]] = {}
    for file in pkgutil.iter_modules(networks.__path__):
        if file.name in OTHER_MODULES:
            continue
        try:
            module = import_module(f"{networks.__name__}.{file.name}")
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"networks/{file.name}.py cannot be imported: {reason}") from error
        names = {name.lower(): name for name in vars(module)}
        architecture = getattr(module, names.get(file.name.replace("_", ""), ""), None)
        if not (inspect.isclass(architecture) and issubclass(architecture, nn.Module)):
            expected = file.name.title().replace("_", "")
            raise UserError(f"networks/{file.name}.py must define a network class {expected}")
        architectures[architecture.__name__] = architecture
    return architectures


# A class of networks, or a function that returns one.
NetworkFactory = Callable[..., nn.Module]
Factory = TypeVar("Factory", bound=Callable[..., Any])


def path_of(factory: Callable[..., Any]) -> str:
    """Return the path at which a class or a function is defined."""
    return f"{factory.__module__}.{factory.__qualname__}"


def by_path(factories: Iterable[Factory]) -> dict[str, Factory]:
    """Map the paths at which classes or functions are defined to them."""
    return {path_of(factory): factory for factory in factories}


ARCHITECTURES = _find_architectures()
REGISTERED = by_path(ARCHITECTURES.values())


class _Origin(NamedTuple):
    """How a network was created; None: with arguments that are not primitives."""

    factory: NetworkFactory
    init_args: dict[str, Any] | None


_ORIGIN = "mnist_lightning_origin"  # the attribute of a network with its `_Origin`


def remember_origin(
    network: nn.Module, factory: NetworkFactory, arguments: Mapping[str, Any]
) -> None:
    """Remember how a network was created, for `describe`.

    Args:
        network: the network.
        factory: its class, or the function that created it.
        arguments: its arguments, as a configuration contains them: a class or a function by name.
            Those that equal the defaults are not needed.
    """
    parameters = inspect.signature(factory).parameters
    changed = {
        name: value
        for name, value in arguments.items()
        if name not in parameters or not _is_default(value, parameters[name].default)
    }
    plain = all(map(_is_primitive, changed.values()))
    # A copy: the network may change a list that it got.
    setattr(network, _ORIGIN, _Origin(factory, copy.deepcopy(changed) if plain else None))


def _is_default(value: Any, default: Any) -> bool:
    """Compare a value of a configuration, where a class or a function has its path."""
    if isinstance(value, str) and not isinstance(default, str):
        module, _, name = value.rpartition(".")
        return getattr(sys.modules.get(module), name, None) is default is not None
    return type(value) is type(default) and bool(value == default)


def factory_of(network: nn.Module) -> NetworkFactory:
    """Return the class of a network, or the function that created it."""
    origin: _Origin | None = vars(network).get(_ORIGIN)
    return type(network) if origin is None else origin.factory


def describe(network: nn.Module) -> dict[str, Any]:
    """Describe in primitives how to build `network` again: its `class_path` and `init_args`.

    `init_args` is None if the network does not store its constructor arguments, or stores
    something else under their names, for example a layer. To load a checkpoint of such a network,
    the caller must pass the network itself.
    """
    origin: _Origin | None = vars(network).get(_ORIGIN)
    if origin is not None:
        return {"class_path": path_of(origin.factory), "init_args": origin.init_args}
    parameters = inspect.signature(type(network)).parameters
    stored = vars(network)
    init_args = {name: stored[name] for name in parameters if _is_primitive(stored.get(name, ...))}
    return {
        "class_path": f"{type(network).__module__}.{type(network).__qualname__}",
        "init_args": init_args if init_args.keys() == parameters.keys() else None,
    }


def is_described_by(network: nn.Module, description: Any) -> bool:
    """Return whether a description is of this network; it may contain defaults or not.

    Descriptions without arguments are from networks of a user that did not store them.
    """
    current, parameters = describe(network), inspect.signature(factory_of(network)).parameters
    path, saved = parse_description(description)
    if path != current["class_path"] or None in (saved, current["init_args"]):
        without_arguments = saved is None and path not in REGISTERED
        return description == current or (path == current["class_path"] and without_arguments)
    changed = [
        {
            name: value
            for name, value in (arguments or {}).items()
            if name not in parameters or not _is_default(value, parameters[name].default)
        }
        for arguments in (saved, current["init_args"])
    ]
    return changed[0] == changed[1]


def _is_primitive(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(name, str) for name in value) and _is_primitive([*value.values()])
    if isinstance(value, list | tuple):
        return all(map(_is_primitive, value))
    return value is None or isinstance(value, bool | int | float | str)


def build(
    description: dict[str, Any],
    user_classes: Iterable[NetworkFactory] = (),
    weights: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Build a network from the output of `describe`, and load its weights.

    Only the architectures of this package, and what is in `user_classes`, are accepted: the
    description comes from a file, and no class that a file names is ever imported.

    Args:
        description: its `class_path` and `init_args`.
        user_classes: other classes of networks, and functions that return one.
        weights: by parameter name; None: the initial weights.

    Raises:
        UserError: the class is unknown, its arguments were not stored or are invalid, or the
            weights do not match the network.
    """
    known: dict[str, NetworkFactory] = {**REGISTERED, **by_path(user_classes)}
    path, init_args = parse_description(description)
    if path not in known:
        raise UserError(
            f"the checkpoint contains a network of unknown class {path}; known classes: "
            f"{', '.join(cls.__name__ for cls in known.values())}; give the class with "
            "--model.network MODULE.CLASS, or in Python pass the class or the network itself"
        )
    if init_args is None:
        raise UserError(
            f"the checkpoint does not contain the arguments of {path}: the class does not store "
            "its constructor arguments as attributes; in Python pass the network itself"
        )
    if weights is not None and path in REGISTERED:
        check_weights(description, weights)
    try:
        network = known[path](**copy.deepcopy(init_args))
        if path not in REGISTERED:
            remember_origin(network, known[path], init_args)
        if weights is not None:
            network.load_state_dict(dict(weights))
    except NETWORK_ERRORS as error:
        raise UserError(f"the network {path} cannot be created: {_first_line(error)}") from None
    return network


def check_weights(description: dict[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Check that weights match a described architecture, before memory is allocated for it.

    Raises:
        WrongWeightsError: the description is invalid, or the weights do not match.
    """
    path, init_args = parse_description(description)
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            network = (ARCHITECTURES | REGISTERED)[path](**(init_args or {}))
            classes = _count_classes(network)
        expected = network.state_dict()
    except (TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
        raise WrongWeightsError(
            f"the network {path} cannot be created: {_first_line(error)}"
        ) from None
    if not 2 <= classes <= MAX_CLASSES:
        raise WrongWeightsError(
            f"the network {path} has {classes} classes; expected 2 to {MAX_CLASSES}"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    actual = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if shapes != actual:
        names = [name for name in shapes | actual if shapes.get(name) != actual.get(name)]
        raise WrongWeightsError(f"the weights do not match {path} {init_args}: {names[0]} differs")
    for name, tensor in weights.items():
        if expected[name].is_floating_point() != tensor.is_floating_point():
            raise WrongWeightsError(f"{name} has the wrong data type {tensor.dtype}")


def _count_classes(network: nn.Module) -> int:
    """Return the number of classes of a network on the device `meta`."""
    # Calling the network there imports torch._dynamo, which takes seconds.
    if isinstance(classes := getattr(network, "num_classes", None), int):
        return classes
    return int(network.eval()(torch.zeros(1, 1, 28, 28)).shape[-1])


def parse_description(description: Any) -> tuple[str, dict[str, Any] | None]:
    """Return the class path and the arguments of a description from a file.

    Raises:
        UserError: the description is invalid.
    """
    if isinstance(description, dict):
        path, init_args = description.get("class_path"), description.get("init_args")
        valid = init_args is None or (
            isinstance(init_args, dict) and all(isinstance(name, str) for name in init_args)
        )
        if isinstance(path, str) and valid:
            return path, init_args
    raise UserError("the file is damaged: its description of the network is missing or invalid")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
