"""The configuration of a run: which options matter for what, and how two differ."""

from collections.abc import Mapping
from typing import Any

from mnist_lightning.errors import UserError
from mnist_lightning.runs.config_schema import Parameter, Schema

Config = dict[str, Any]

# The options that set the length of a run.
LENGTHS = ("max_epochs", "max_steps", "max_time")
# Options for this machine, which do not define the experiment. They are ignored in the files of a
# run from elsewhere.
MACHINE_OPTIONS = (
    "auto_resume",
    "log_lines",
    "trainer.fast_dev_run",
    "trainer.barebones",
    "model.compile",
    "trainer.accelerator",
    "trainer.default_root_dir",
    "trainer.devices",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.logger",
    "trainer.num_nodes",
    "trainer.plugins",
    "trainer.profiler",
    "trainer.strategy",
    "data.eval_batch_size",
    "data.num_workers",
    "data.pin_memory",
)
_EXPERIMENT_OPTIONS = ("trainer.plugins", "trainer.fast_dev_run", "trainer.barebones")
# Options that may change when a run is resumed: they do not affect the weights.
RESUME_OVERRIDABLE = {
    *(name for name in MACHINE_OPTIONS if name not in _EXPERIMENT_OPTIONS),
    "autosave",
    "dashboards",
    "keep_last",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.log_every_n_steps",
    "trainer.limit_test_batches",
    "data.data_dir",
    "data.folder",
}
MAX_BATCH_SIZE = 4096  # for a file from elsewhere
# The trainer options that an evaluation needs.
_EVALUATION_OPTIONS = (
    "accelerator",
    "default_root_dir",
    "limit_test_batches",
    "limit_val_batches",
    "precision",
)


def is_unbounded(config: Mapping[str, Any]) -> bool:
    """Return whether a run ends only when it is interrupted."""
    trainer = config["trainer"]
    return bool(trainer["max_epochs"] == trainer["max_steps"] == -1 and trainer["max_time"] is None)


def remove_machine_options(config: Config) -> Config:
    """Return a configuration without the `MACHINE_OPTIONS`."""
    portable: Config = {}
    for name, value in config.items():
        if isinstance(value, dict):
            section = {n: v for n, v in value.items() if f"{name}.{n}" not in MACHINE_OPTIONS}
            portable[name] = section
        elif name not in MACHINE_OPTIONS:
            portable[name] = value
    return portable


def check_batch_size(config: Config) -> None:
    """Check the batch size in a file from elsewhere.

    Raises:
        UserError: it exceeds the limit.
    """
    batch_size = config.get("data", {}).get("batch_size", 0)
    if batch_size > MAX_BATCH_SIZE:
        raise UserError(
            f"data.batch_size {batch_size} exceeds {MAX_BATCH_SIZE:,}, the limit for a run from "
            "elsewhere; add --trust to allow it"
        )


def evaluation_config(config: Config) -> Config:
    """Reduce a configuration to the options of an evaluation: network, data, computation."""
    model, trainer = config["model"], dict(config.get("trainer") or {})
    for name in ("limit_test_batches", "limit_val_batches"):
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
    before, now = flatten(_add_defaults(saved, current, schema)), flatten(current)
    # If a class differs, report only the class, not its arguments.
    for path in [name for name in before if name.endswith(".class_path")]:
        if before.get(path) != now.get(path):
            arguments = path.removesuffix("class_path") + "init_args."
            before = {n: v for n, v in before.items() if not n.startswith(arguments)}
            now = {n: v for n, v in now.items() if not n.startswith(arguments)}
    return [
        f"--{name} is {now.get(name)} here, {before.get(name)} in the checkpoint"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and not _is_overridable(name)
    ]


def _add_defaults(saved: Config, current: Config, schema: Schema) -> Config:
    """Add the options of `current` that `saved` does not contain, with their defaults."""
    completed: Config = _fill(saved, current, schema.sections[""], schema)
    for section, parameters in schema.sections.items():
        if isinstance(saved.get(section), dict) and isinstance(current.get(section), dict):
            completed[section] = _fill(saved[section], current[section], parameters, schema)
    return completed


def _fill(
    saved: Config, current: Config, parameters: Mapping[str, Parameter], schema: Schema
) -> Config:
    completed = dict(saved)
    for name, value in current.items():
        if name not in completed and name in parameters:
            default = parameters[name].default
            completed[name] = list(default) if isinstance(default, tuple) else default
        elif name in completed:
            completed[name] = _fill_arguments(completed[name], value, schema)
    return completed


def _fill_arguments(saved: Any, current: Any, schema: Schema) -> Any:
    """Add the newer arguments of a class, or of each class in a list."""
    if isinstance(saved, list) and isinstance(current, list) and len(saved) == len(current):
        pairs = zip(saved, current, strict=True)
        return [_fill_arguments(old, new, schema) for old, new in pairs]
    both_dicts = isinstance(saved, dict) and isinstance(current, dict)
    if not both_dicts or saved.get("class_path") != current.get("class_path"):
        return saved
    component = schema.components.get(str(current.get("class_path")))
    old, new = saved.get("init_args"), current.get("init_args")
    if component is None or not isinstance(old, dict) or not isinstance(new, dict):
        return saved
    return saved | {"init_args": _fill(old, new, schema.parameters(component), schema)}


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
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
