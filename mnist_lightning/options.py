"""What stands behind a command, before and beside the parser: RUNs, configurations, conflicts."""

import argparse
import json
import re
from pathlib import Path
from typing import Any, NoReturn

from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.runs import LOGS_FOLDER

# What may differ when a run goes on: how long, where, and what is shown of it.
FREE_ON_RESUME = {
    "log_lines",
    "auto_resume",
    "autosave",
    "keep_last",
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
    "data.num_workers",
    "data.pin_memory",
    "data.eval_batch_size",
}


class CommandParser(argparse.ArgumentParser):
    """A parser of a command that has but a few options; its errors are the project's own."""

    def __init__(self, command: str, description: str, example: str) -> None:
        super().__init__(
            prog=f"{PROGRAM} {command}",
            description=description,
            epilog=f"example: {PROGRAM} {command} {example}".rstrip(),
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Tell a mistake in one line.

        Raises:
            UserError: always.
        """
        raise UserError(message, status=2)


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
            if value is None:
                raise UserError(f"{name} needs a value", status=2)
        else:
            rest.append(argument)
    return value, rest


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
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


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
