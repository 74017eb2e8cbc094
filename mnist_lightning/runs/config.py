"""The configuration of a run: which options matter for what, and how two differ."""

import math
from collections.abc import Mapping
from typing import Any

from mnist_lightning.errors import UserError
from mnist_lightning.runs.config_schema import Parameter, Schema

Config = dict[str, Any]

MAX_CHARS = 10_000  # of a text in a checkpoint, which contains the configuration
# The options that set the length of a run.
LENGTHS = ("max_epochs", "max_steps", "max_time")
# Options for this machine, which do not define the experiment. They are ignored in the files of a
# run from elsewhere.
MACHINE_OPTIONS = (
    *("auto_resume", "log_lines", "model.compile"),
    *("data.eval_batch_size", "data.num_workers", "data.pin_memory", "data.folder"),
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"),
    *("trainer.default_root_dir", "trainer.logger", "trainer.plugins", "trainer.profiler"),
    *("trainer.enable_model_summary", "trainer.enable_progress_bar"),
    *("trainer.fast_dev_run", "trainer.barebones"),
    *("trainer.model_registry", "trainer.enable_autolog_hparams"),
)
# Options that may change when a run is resumed: they do not affect the weights.
RESUME_OVERRIDABLE = {
    *{*MACHINE_OPTIONS} - {"trainer.plugins", "trainer.fast_dev_run", "trainer.barebones"},
    *("autosave", "dashboards", "keep_last", "data.data_dir"),
    *(f"trainer.{name}" for name in (*LENGTHS, "log_every_n_steps", "limit_test_batches")),
}
# For a file from elsewhere. An extra share of 0.75 repeats the images until there are four times as
# many. LBFGS evaluates the network up to `max_eval` times in a step.
_OPTIMIZER = "model.optimizer.init_args"
COST_LIMITS = {
    **{"data.batch_size": 4096, "data.extra_share": 0.75},
    **{f"{_OPTIMIZER}.max_iter": 100, f"{_OPTIMIZER}.max_eval": 125},
    **{f"{_OPTIMIZER}.history_size": 100},
}
_LIMITS = ("limit_test_batches", "limit_val_batches")
# The trainer options that an evaluation needs.
_EVALUATION_OPTIONS = ("accelerator", "default_root_dir", "precision", *_LIMITS)


def is_unbounded(config: Mapping[str, Any]) -> bool:
    """Return whether a run ends only when it is interrupted."""
    trainer = config["trainer"]
    return bool(trainer["max_epochs"] == trainer["max_steps"] == -1 and trainer["max_time"] is None)


def remove_machine_options(config: Config) -> Config:
    """Return a configuration without the `MACHINE_OPTIONS`."""
    portable = {name: value for name, value in config.items() if name not in MACHINE_OPTIONS}
    for name, value in portable.items():
        if isinstance(value, dict):
            portable[name] = {n: value[n] for n in value if f"{name}.{n}" not in MACHINE_OPTIONS}
    return portable


def check_costs(config: Config) -> None:
    """Check the options in a file from elsewhere that determine its memory and computing time.

    Raises:
        UserError: one exceeds its limit.
    """
    for option, limit in COST_LIMITS.items():
        value: Any = config
        for name in option.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None and value > limit:
            raise UserError(
                f"{option} {value} exceeds {limit:,}, the limit for a run from elsewhere; "
                "add --trust to allow it"
            )


def check_storable(value: Any, option: str = "") -> None:
    """Check that a checkpoint with these options can be read again.

    Raises:
        UserError: an integer or a text is too large, or a number is not finite.
    """
    if isinstance(value, Mapping):
        for name, item in value.items():
            check_storable(item, f"{option}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for item in value:
            check_storable(item, option)
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise UserError(f"--{option} exceeds 64 bits: give a smaller integer", status=2)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"--{option} is {value}: give a finite number", status=2)
    elif isinstance(value, str) and len(value) > MAX_CHARS:
        raise UserError(f"--{option} exceeds {MAX_CHARS:,} characters: give a shorter text", 2)


def evaluation_config(config: Config) -> Config:
    """Reduce a configuration to the options of an evaluation: network, data, computation."""
    model, trainer = config["model"], dict(config.get("trainer") or {})
    for name in _LIMITS:
        if trainer.get(name) == 0:  # trials of a sweep skip the test; an evaluation does not
            del trainer[name]
    return {
        "model": {name: model[name] for name in ("network", "channels_last") if name in model},
        "trainer": {name: trainer[name] for name in _EVALUATION_OPTIONS if name in trainer},
        **({"data": config["data"]} if "data" in config else {}),
    }


def find_conflicts(saved: Config, current: Config, schema: Schema) -> list[str]:
    """List the differences between the configuration of a checkpoint and the current one.

    Args:
        saved: from the checkpoint. A missing option is newer, and gets its default.
        current: complete.
        schema: provides the defaults.
    """
    sections = schema.sections
    before = flatten(_add_defaults(saved, current, schema, sections[""], sections))
    now = flatten(current)
    # If a class differs, report only the class, not its arguments.
    changed = [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]
    classes = [name for name in changed if name.endswith(".class_path")]
    ignored = tuple(name.removesuffix("class_path") + "init_args." for name in classes)
    return [
        f"--{name} is {now.get(name)} here, {before.get(name)} in the checkpoint"
        for name in sorted(changed)
        if not name.startswith(ignored) and not _is_overridable(name)
    ]


def _add_defaults(
    saved: Any,
    current: Any,
    schema: Schema,
    parameters: Mapping[str, Parameter] = {},
    sections: Mapping[str, Mapping[str, Parameter]] = {},
) -> Any:
    """Add the options of `current` that `saved` does not contain, with their defaults.

    Also add the newer arguments of a class, or of each class in a list.
    """
    if isinstance(saved, list) and isinstance(current, list) and len(saved) == len(current):
        pairs = zip(saved, current, strict=True)
        return [_add_defaults(old, new, schema) for old, new in pairs]
    both_dicts = isinstance(saved, dict) and isinstance(current, dict)
    if not both_dicts or saved.get("class_path") != current.get("class_path"):
        return saved
    if (component := schema.components.get(str(saved.get("class_path")))) is not None:
        sections = {"init_args": schema.parameters(component)}
    defaults = {name: parameters[name].default for name in current if name in parameters}
    return {
        **{n: list(value) if isinstance(value, tuple) else value for n, value in defaults.items()},
        **{
            name: _add_defaults(value, current.get(name), schema, sections.get(name, {}))
            for name, value in saved.items()
        },
    }


def reproducibility_key(config: Config) -> dict[str, Any]:
    """Return the options that determine a run's result, except the seed, by dotted names."""
    lengths = {f"trainer.{name}" for name in LENGTHS}
    return {
        name: value
        for name, value in flatten(config).items()
        if name != "seed_everything" and (name in lengths or not _is_overridable(name))
    }


def _is_overridable(name: str) -> bool:
    return any(name == option or name.startswith(f"{option}.") for option in RESUME_OVERRIDABLE)


def flatten(config: Config, prefix: str = "") -> dict[str, Any]:
    """Flatten a configuration to one level of dotted names."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        flat |= flatten(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat


def readable_name(option: str) -> str:
    """Return the name of a flattened option as a command has it, such as `model.optimizer.lr`."""
    return option.replace(".init_args", "").removesuffix(".class_path")


def format_setting(value: Any) -> str:
    """Format a setting as text; a class with arguments as a call."""
    if isinstance(value, list):
        return f"[{', '.join(map(format_setting, value))}]"
    if isinstance(value, dict) and "class_path" in value:
        arguments = value.get("init_args") or {}
        if not isinstance(arguments, dict):
            return str(value)
        inner = [f"{name}={format_setting(argument)}" for name, argument in arguments.items()]
        return f"{str(value['class_path']).rsplit('.', 1)[-1]}({', '.join(inner)})"
    return str(value)
