"""The hyperparameters of a run as short values, for the table of TensorBoard."""

from typing import Any

from mnist_lightning.runs.config import Config, readable_name, reproducibility_key
from mnist_lightning.training.registry import USER_SCHEMA
from mnist_lightning.training.trainer import TRAINER_DEFAULTS

Value = bool | float | str

# Shown with any value, so that these columns of the table have no gaps.
_ALWAYS = (
    *("data.batch_size", "trainer.max_epochs"),
    *("model.network", "model.optimizer", "model.optimizer.lr"),
)
# How an optimizer computes, not what.
_IMPLEMENTATION = ("capturable", "differentiable", "foreach", "fused")
_MAX_CHARS = 80


def select_hyperparameters(config: Config, dataset: str) -> dict[str, Value]:
    """Return the main hyperparameters, and those that differ from their defaults.

    The names are those of the options. A class is shown by its name; its arguments are further
    hyperparameters.

    Args:
        config: the complete configuration of a run.
        dataset: the name of the data set.
    """
    options = reproducibility_key(config)
    selected: dict[str, Any] = {"seed": config["seed_everything"], "data.dataset": dataset}
    for option, value in options.items():
        name = readable_name(option)
        if option == "data.dataset":
            continue
        if option.endswith(".class_path"):
            selected[name] = _class_name(value)
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            selected |= _components(name, value)
        elif name in _ALWAYS or not _is_default(option, value, options):
            selected[name] = value
    first = dict.fromkeys(name for name in _ALWAYS if name in selected)
    return {name: _plain(selected[name]) for name in first | selected}


def _components(name: str, components: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the names of the classes in a list, and their arguments that are not defaults."""
    classes = [_class_name(component["class_path"]) for component in components]
    selected: dict[str, Any] = {name: classes}
    for short, component in zip(classes, components, strict=True):
        for argument, value in component.get("init_args", {}).items():
            if not _is_default_argument(component["class_path"], argument, value):
                selected[f"{name}.{short}.{argument}"] = value
    return selected


def _is_default(option: str, value: Any, options: dict[str, Any]) -> bool:
    owner, _, argument = option.rpartition(".init_args.")
    if owner:
        return _is_default_argument(options.get(f"{owner}.class_path", ""), argument, value)
    section, _, name = option.rpartition(".")
    parameter = USER_SCHEMA.sections.get(section, {}).get(name)
    if parameter is None:  # within the arguments of a class that is not registered
        return False
    own = TRAINER_DEFAULTS if section == "trainer" else {}
    return _equal(value, own.get(name, parameter.default))


def _is_default_argument(class_path: str, argument: str, value: Any) -> bool:
    if argument in _IMPLEMENTATION:
        return True
    component = USER_SCHEMA.components.get(class_path)
    parameters = USER_SCHEMA.parameters(component) if component is not None else {}
    return argument in parameters and _equal(value, parameters[argument].default)


def _equal(value: Any, default: Any) -> bool:
    return bool(value == (list(default) if isinstance(default, tuple) else default))


def _class_name(class_path: str) -> str:
    return class_path.rpartition(".")[2]


def _plain(value: Any) -> Value:
    if isinstance(value, bool):  # TensorBoard would show 1 or 0
        return str(value).lower()
    if isinstance(value, int | float):
        return value
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= _MAX_CHARS else f"{text[: _MAX_CHARS - 1]}…"
