"""The configuration of a run: which options matter for what, and how two differ."""

from collections.abc import Mapping
from typing import Any

from mnist_lightning.errors import UserError
from mnist_lightning.runs.config_schema import Parameter, Schema

Config = dict[str, Any]

# The options that set the length of a run.
LENGTHS = ("max_epochs", "max_steps", "max_time")
# How this machine runs an experiment, not what the experiment is. A run from elsewhere does not
# decide it: its files are read without these.
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
_OF_THE_EXPERIMENT_TOO = ("trainer.plugins", "trainer.fast_dev_run", "trainer.barebones")
# What may differ when a run is resumed: none of it affects the weights.
RESUME_OVERRIDABLE = {
    *(name for name in MACHINE_OPTIONS if name not in _OF_THE_EXPERIMENT_TOO),
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
MAX_BATCH_SIZE = 4096  # that a file from elsewhere may ask for
# What an evaluation needs of the trainer's options.
_EVALUATION_OPTIONS = (
    "accelerator",
    "default_root_dir",
    "limit_test_batches",
    "limit_val_batches",
    "precision",
)


def is_unbounded(config: Mapping[str, Any]) -> bool:
    """Tell whether only an interrupt ends a run."""
    trainer = config["trainer"]
    return bool(trainer["max_epochs"] == trainer["max_steps"] == -1 and trainer["max_time"] is None)


def portable(config: Config) -> Config:
    """Return a configuration without how its machine ran it; see `MACHINE_OPTIONS`."""
    kept: Config = {}
    for name, value in config.items():
        if isinstance(value, dict):
            left = {n: v for n, v in value.items() if f"{name}.{n}" not in MACHINE_OPTIONS}
            kept[name] = left
        elif name not in MACHINE_OPTIONS:
            kept[name] = value
    return kept


def refuse_large_batches(config: Config) -> None:
    """Refuse a batch that is larger than a file from elsewhere may ask for.

    Raises:
        UserError: it is.
    """
    batch_size = config.get("data", {}).get("batch_size", 0)
    if batch_size > MAX_BATCH_SIZE:
        raise UserError(
            f"data.batch_size {batch_size} exceeds {MAX_BATCH_SIZE:,}, the limit for a run from "
            "elsewhere; add --trust to allow it"
        )


def evaluation_config(config: Config) -> Config:
    """Reduce a configuration to what an evaluation needs: network, data, and how to compute."""
    model, trainer = config["model"], dict(config.get("trainer") or {})
    for name in ("limit_test_batches", "limit_val_batches"):
        if trainer.get(name) == 0:  # a sweep's trial looks at no test image; a test does
            del trainer[name]
    return {
        "model": {name: model[name] for name in ("network", "channels_last") if name in model},
        "trainer": {name: trainer[name] for name in _EVALUATION_OPTIONS if name in trainer},
        **({"data": config["data"]} if "data" in config else {}),
    }


def conflicts(saved: Config, wanted: Config, schema: Schema) -> list[str]:
    """List what differs between the configuration of a checkpoint and the wanted one.

    Args:
        saved: the checkpoint's. An option that it lacks is newer, and had its default.
        wanted: the current one, complete.
        schema: knows the defaults.
    """
    before, now = flatten(_completed(saved, wanted, schema)), flatten(wanted)
    # Where a class differs, so do all its arguments: to name the class is enough.
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


def _completed(saved: Config, wanted: Config, schema: Schema) -> Config:
    """Add the options that `wanted` has and `saved` lacks, with their defaults."""
    completed: Config = _filled(saved, wanted, schema.sections[""], schema)
    for section, parameters in schema.sections.items():
        if isinstance(saved.get(section), dict) and isinstance(wanted.get(section), dict):
            completed[section] = _filled(saved[section], wanted[section], parameters, schema)
    return completed


def _filled(
    saved: Config, wanted: Config, parameters: Mapping[str, Parameter], schema: Schema
) -> Config:
    filled = dict(saved)
    for name, value in wanted.items():
        if name not in filled and name in parameters:
            default = parameters[name].default
            filled[name] = list(default) if isinstance(default, tuple) else default
        elif name in filled:
            filled[name] = _with_arguments(filled[name], value, schema)
    return filled


def _with_arguments(saved: Any, wanted: Any, schema: Schema) -> Any:
    """Add the arguments that a class, or each class of a list, has got since."""
    if isinstance(saved, list) and isinstance(wanted, list) and len(saved) == len(wanted):
        pairs = zip(saved, wanted, strict=True)
        return [_with_arguments(old, new, schema) for old, new in pairs]
    both = isinstance(saved, dict) and isinstance(wanted, dict)
    if not both or saved.get("class_path") != wanted.get("class_path"):
        return saved
    component = schema.components.get(str(wanted.get("class_path")))
    old, new = saved.get("init_args"), wanted.get("init_args")
    if component is None or not isinstance(old, dict) or not isinstance(new, dict):
        return saved
    return saved | {"init_args": _filled(old, new, schema.parameters(component), schema)}


def reproducibility_key(config: Config) -> dict[str, Any]:
    """Return what the result of a run depends on besides its seed, by dotted option names."""
    lengths = {f"trainer.{name}" for name in LENGTHS}
    return {
        name: value
        for name, value in flatten(config).items()
        if name != "seed_everything" and (name in lengths or not _is_overridable(name))
    }


def _is_overridable(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in RESUME_OVERRIDABLE)


def flatten(config: Config, prefix: str = "") -> dict[str, Any]:
    """Write a configuration as one level of dotted names."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
