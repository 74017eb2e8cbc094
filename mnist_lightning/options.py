"""What stands behind a command, before and beside the parser: RUNs, configurations, conflicts."""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from mnist_lightning import mistakes
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.files import read_yaml
from mnist_lightning.runs.run_directory import LOGS_FOLDER, Run

# What may differ when a run goes on: how long, where, and what is shown of it.
FREE_ON_RESUME = {
    "log_lines",
    "auto_resume",
    "autosave",
    "dashboards",
    "keep_last",
    "model.compile",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.logger",
    "trainer.log_every_n_steps",
    "trainer.default_root_dir",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.profiler",
    "trainer.limit_test_batches",
    "data.data_dir",
    "data.folder",
    "data.num_workers",
    "data.pin_memory",
    "data.eval_batch_size",
}


class CommandParser(argparse.ArgumentParser):
    """A parser of a command that has but a few options; its errors are the project's own."""

    def __init__(self, command: str, description: str, example: str) -> None:
        self.command = command
        super().__init__(
            prog=f"{PROGRAM} {command}",
            description=description,
            epilog=f"example: {PROGRAM} {command} {example}".rstrip(),
            allow_abbrev=False,
        )

    def add_root(self) -> None:
        """Take the folder of the runs, as `root`."""
        self.add_argument(
            "--trainer.default_root_dir", dest="root", metavar="DIR", help="where the runs are"
        )

    def add_form(self) -> None:
        """Take in which form to print: `json`, `csv`, or neither."""
        form = self.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="print JSON")
        form.add_argument("--csv", action="store_true", help="print CSV")

    def add_run_elsewhere(self) -> None:
        """Take what it needs to ask a run anew: its runs' folder, its data, and its network."""
        self.add_root()
        self.add_argument(
            "--data.data_dir", dest="data_dir", metavar="DIR", help="where its data set is now"
        )
        self.add_network()

    def add_network(self) -> None:
        """Take the class of a network of one's own, as `network`."""
        self.add_argument(
            "--model.network", dest="network", metavar="CLASS", help="your own network's class"
        )

    def error(self, message: str) -> NoReturn:
        """Tell a mistake in one line.

        Raises:
            UserError: always.
        """
        options = [option.removeprefix("--") for option in self._option_string_actions]
        raise UserError(mistakes.plainly(message, options, self.command), status=2)


MOST_SEEDS = 1000
# What the parser might import: a class, or a function where one is taken, by its dotted name.
_IMPORTABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
# What a checkpoint may name by itself.
_OURS = re.compile(
    r"mnist_lightning\.(networks|schedules|callbacks|data\.augment)(\.\w+)+"
    r"|torch\.optim\.(lr_scheduler\.)?\w+"
)
_FOLDERS = ("data_dir", "default_root_dir", "folder")  # a folder's name may have dots as well
# What sets the length of a run.
LENGTHS = ("max_epochs", "max_steps", "max_time")
# What an evaluation needs to know of the trainer that a run was made with.
_EVALUATES = (
    "accelerator",
    "default_root_dir",
    "limit_test_batches",
    "limit_val_batches",
    "precision",
)


def runs_root(default_root_dir: str | None) -> Path:
    """The folder of the runs, as Lightning lays it out under its `default_root_dir`."""
    return Path(default_root_dir or "") / LOGS_FOLDER


def as_argument(config: dict[str, Any]) -> list[str]:
    """A configuration as options: later ones override it."""
    return ["--config", json.dumps(config)]


def take_option(name: str, arguments: list[str]) -> tuple[str | None, list[str]]:
    """Find `name VALUE` or `name=VALUE`; return the last value, if any, and the other arguments.

    Raises:
        UserError: the value is missing.
    """
    value, rest = None, []
    waiting = iter(arguments)
    for argument in waiting:
        if argument.startswith(f"{name}="):
            value = argument.removeprefix(f"{name}=")
        elif argument == name:
            value = next(waiting, None)
            if value is None or value.startswith("--"):
                raise UserError(f"{name} needs a value", status=2)
        else:
            rest.append(argument)
    return value, rest


def take_switch(name: str, arguments: list[str]) -> tuple[bool, list[str]]:
    """Find `name`, `name true` or `name false`; return whether it is on, and the others."""
    if name not in arguments:
        return f"{name}=true" in arguments, [
            word for word in arguments if word not in (f"{name}=true", f"{name}=false")
        ]
    place = arguments.index(name)
    after = arguments[place + 1 : place + 2]
    said = after[0] if after in (["true"], ["false"]) else None
    return said != "false", arguments[:place] + arguments[place + 1 + bool(said) :]


def take_run(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Find what stands for the run: `--ckpt_path FILE`, or a RUN as the first argument."""
    checkpoint, rest = take_option("--ckpt_path", arguments)
    if "" in (checkpoint, *rest[:1]):
        raise UserError("the RUN is empty", status=2)
    if rest and not rest[0].startswith("-"):
        reference, rest = rest[0], rest[1:]
        if checkpoint is not None:
            raise UserError(f"both RUN {reference} and --ckpt_path {checkpoint}: give one", 2)
        return reference, rest
    return checkpoint, rest


def asks_for_help(arguments: list[str]) -> bool:
    """Whether a command's help is wanted."""
    return "--help" in arguments or "-h" in arguments


def root_in(arguments: list[str]) -> Path:
    """The folder of the runs, by a command's options."""
    return runs_root(take_option("--trainer.default_root_dir", arguments)[0])


def refuse_broken_files(arguments: Sequence[str]) -> None:
    """Find the configuration that is no YAML: the parser does not say which.

    Raises:
        UserError: there is one.
    """
    for before, word in zip(["", *arguments], arguments, strict=False):
        named = word if before in ("-c", "--config") else word.partition("--config=")[2]
        if named and not named.startswith("{") and Path(named).is_file():
            read_yaml(Path(named))


def read_seeds(text: str) -> list[int]:
    """Read `1..5` or `1,2,7`.

    Raises:
        UserError: it is neither.
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last:
            raise UserError(f"--seeds: {text} will not do; it takes 1..5 or 1,2,7", status=2)
        if last >= 2**32 or last - first >= MOST_SEEDS:
            raise UserError(
                f"--seeds: {text} will not do; {MOST_SEEDS} seeds at most, below 2**32", status=2
            )
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def config_of(
    checkpoint: dict[str, Any], path: Path, run: Run, arguments: list[str]
) -> dict[str, Any]:
    """Take the configuration out of a checkpoint; its network alone where Lightning alone made it.

    Parsing a configuration imports what it names. What a file names is imported only if it is
    this package's or one of torch's optimizers and schedules, or if the user named it too: in the
    run's `config.yaml`, or in the command.

    Raises:
        UserError: it has none, or names something else.
    """
    if "network" not in checkpoint:
        raise UserError(f"{path} holds no DigitClassifier")
    config = checkpoint.get("config", {"model": {"network": checkpoint["network"]}})
    trusted = _importable(run.read_config()) if run.config.is_file() else set()
    trusted |= {argument.rsplit("=", 1)[-1] for argument in arguments}
    for name in sorted(_importable(config) - trusted):
        if not _OURS.fullmatch(name):
            raise UserError(
                f"{path} names {name}, which is none of ours; nothing that a checkpoint names is "
                "imported unless you name it too, in the command or the run's config.yaml"
            )
    return dict(config)


def what_evaluates(config: dict[str, Any]) -> dict[str, Any]:
    """Leave of a configuration what an evaluation needs: network, data, and how to compute."""
    model, trainer = config["model"], dict(config.get("trainer", {}))
    for name in ("limit_test_batches", "limit_val_batches"):
        if trainer.get(name) == 0:  # a sweep's trial looks at no test image; a test does
            del trainer[name]
    return {
        "model": {name: model[name] for name in ("network", "channels_last") if name in model},
        "trainer": {name: trainer[name] for name in _EVALUATES if name in trainer},
        **({"data": config["data"]} if "data" in config else {}),
    }


def _importable(part: Any) -> set[str]:
    """Whatever in a configuration may be the name of something to import, wherever it stands."""
    if isinstance(part, str):
        return {part} if _IMPORTABLE.fullmatch(part) else set()
    if isinstance(part, dict):
        part = [value for name, value in part.items() if name not in _FOLDERS]
    return set().union(*map(_importable, part)) if isinstance(part, list | tuple) else set()


def conflicts(saved: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What differs between a checkpoint's configuration and the one wanted, both values shown."""
    before, now = _flat(saved), _flat(wanted)
    # Where a class differs, so do all its arguments: to name the class is enough.
    for path in [name for name in before if name.endswith(".class_path")]:
        if before[path] != now.get(path):
            arguments = path.removesuffix("class_path") + "init_args."
            before = {n: v for n, v in before.items() if not n.startswith(arguments)}
            now = {n: v for n, v in now.items() if not n.startswith(arguments)}
    return [
        f"--{name} is {now.get(name)} here, {before.get(name)} in the checkpoint"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and not _is_free(name)
    ]


def experiment(config: dict[str, Any]) -> dict[str, Any]:
    """What a run's result hangs on beside its seed: settings by their dotted names."""
    lengths = {f"trainer.{name}" for name in LENGTHS}
    return {
        name: value
        for name, value in _flat(config).items()
        if name != "seed_everything" and (name in lengths or not _is_free(name))
    }


def _is_free(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in FREE_ON_RESUME)


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
