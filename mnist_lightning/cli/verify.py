"""The command `verify`: check the promises with real runs that are killed and resumed."""

import multiprocessing
import os
import random
import runpy
import signal
import sys
import tempfile
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from mnist_lightning.cli.lightning_cli import DigitCLI, configure_warnings
from mnist_lightning.cli.parser import as_argument, take_option, take_switch
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.runs.checkpoint import read_checkpoint
from mnist_lightning.runs.metrics_csv import METRICS_FILE
from mnist_lightning.runs.resumable import progress
from mnist_lightning.runs.run_directory import LOGS_FOLDER, Run
from mnist_lightning.text import say

KILLS = 3
# A run of some seconds, unless the command says otherwise.
SHORT = {
    "--trainer.max_epochs": "2",
    "--trainer.limit_train_batches": "150",
    "--trainer.limit_val_batches": "2",
    "--trainer.limit_test_batches": "2",
    "--autosave": "0.002",
}

# Processes forked from one that has imported everything: the imports are paid once.
CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["mnist_lightning.cli.verify", "mnist_lightning.cli.fit"]
CONTEXT.set_forkserver_preload(PRELOADED)


def main(arguments: list[str]) -> int:
    """Try each promise and say how it went; return 1 if one does not hold."""
    configure_warnings()
    trust, arguments = take_switch("--trust", arguments)
    for option, value in SHORT.items():
        if take_option(option, arguments)[0] is None:
            arguments = [*arguments, option, value]
    cli = DigitCLI("verify", arguments, _HELP, trust=trust)
    began = time.perf_counter()
    try:
        cli.load_data()
    except UserError as error:
        _verdict("the data is whole", False, str(error))
        return 1
    verdicts = [_whole_data(cli), _disjoint_splits(cli), *_same_bits(cli)]
    broken = verdicts.count(False)
    verdict = f"{broken} of {len(verdicts)} are broken" if broken else "every promise holds here"
    say(f"{verdict} ({time.perf_counter() - began:.0f} s)")
    return 1 if broken else 0


def _verdict(promise: str, holds: bool, how: str) -> bool:
    say(f"{'holds ' if holds else 'BROKEN'}  {promise}: {how}", flush=True)
    return holds


def _whole_data(cli: DigitCLI) -> bool:
    data, fallback = cli.datamodule.data, cli.datamodule.fallback_reason
    how = f"{data.name}, every file read and checked, checksum {data.checksum[:12]}"
    if fallback is not None:
        how += f" (this is not MNIST: {fallback})"
    return _verdict("the data is whole", True, how)


def _disjoint_splits(cli: DigitCLI) -> bool:
    train, val = (
        set(indices.tolist())
        for indices in (cli.datamodule.train_indices, cli.datamodule.val_indices)
    )
    complete = len(train | val) == len(cli.datamodule.data.train_labels)
    how = f"{len(train):,} images to train, {len(val):,} to validate, {len(train & val)} in both"
    return _verdict("the splits are disjoint", complete and not train & val, how)


def _same_bits(cli: DigitCLI) -> list[bool]:
    """Train twice, and once more with kills between; compare all that the three leave behind."""
    config = cli.complete_config()
    config["auto_resume"] = False
    config["trainer"]["default_root_dir"] = None
    config["data"]["data_dir"] = str(cli.datamodule.data_dir.resolve())
    if cli.datamodule.folder is not None:
        config["data"]["folder"] = str(cli.datamodule.folder.resolve())
    # The user allowed these classes in this command, whether or not its runs can be signed.
    fit = ["fit", *as_argument(config), "--trust"]
    with tempfile.TemporaryDirectory(prefix="mnist_lightning_verify_") as place:
        once, again, killed = (Path(place) / name for name in ("once", "again", "killed"))
        for folder in (once, again):
            _finish(fit, folder)
        difference = first_difference_of_runs(_run(once), _run(again))
        how = f"two runs of seed {config['seed_everything']}: "
        promise = "the same seed gives the same bits"
        repeats = _verdict(promise, difference is None, how + (difference or "equal in every bit"))
        longest = _run(once).summary()["fit_seconds"] / (KILLS + 1)
        moments = _kill_and_resume(fit, killed, longest)
        if not moments:
            raise UserError("the run is too short to be killed: give it more batches or epochs")
        difference = first_difference_of_runs(_run(once), _run(killed))
        how = f"killed {len(moments)} times ({', '.join(moments)}) and resumed: "
        how += difference or "equal to the uninterrupted run in every bit and logged figure"
        resumes = _verdict("a killed run ends as if nothing had happened", difference is None, how)
    if not repeats and not config["trainer"]["deterministic"]:
        say(f"        try: {PROGRAM} verify --trainer.deterministic true")
    return [repeats, resumes]


def _kill_and_resume(fit: list[str], folder: Path, longest: float) -> list[str]:
    """Kill a run at random moments, so many seconds apart at most; say where it was each time."""
    run = _run(folder)
    command, moments = fit, []
    for _ in range(KILLS):
        before = _stamp(run)
        process = start(command, folder)
        while process.is_alive() and _stamp(run) == before:
            time.sleep(0.005)
        time.sleep(random.uniform(0, longest))
        process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            break  # it was done already
        moments.append(f"after {progress(read_checkpoint(run.recent()))}")
        command = ["resume", "--trust"]
    _finish(command, folder)
    return moments


def _stamp(run: Run) -> int:
    return run.recent().stat().st_mtime_ns if run.recent().exists() else 0


def _finish(command: list[str], folder: Path) -> None:
    process = start(command, folder)
    process.join()
    if process.exitcode != 0:
        last = (folder / "printed").read_text().strip().splitlines()[-1]
        raise UserError(f"a run of this configuration fails: {last}")


def _run(folder: Path) -> Run:
    return Run(folder / LOGS_FOLDER / "version_0")


def first_difference_of_runs(left: Run, right: Run) -> str | None:
    """Say where two runs differ in what they go on from, are tested with, or have logged."""
    for name in ("last.ckpt", "best.ckpt"):
        pair = (read_checkpoint(run.checkpoints / name) for run in (left, right))
        if where := first_difference(name, *pair):
            return f"they differ in {where}"
    tables = [(run.folder / METRICS_FILE).read_bytes() for run in (left, right)]
    return None if tables[0] == tables[1] else f"they differ in {METRICS_FILE}"


def first_difference(name: str, left: Any, right: Any) -> str | None:
    """Compare two checkpoints, or parts of them, at tolerance 0; name where they first differ."""
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        same = left.dtype == right.dtype and left.shape == right.shape
        return None if same and _bits(left) == _bits(right) else name  # also of what is NaN
    if isinstance(left, dict) and isinstance(right, dict):
        if left.keys() != right.keys():
            return f"{name} (keys)"
        parts = [(f"{name}.{key}", left[key], right[key]) for key in left]
    elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
        if len(left) != len(right):
            return f"{name} (length)"
        parts = [(f"{name}[{i}]", *pair) for i, pair in enumerate(zip(left, right, strict=True))]
    else:
        same = left == right or (left != left and right != right)  # both are NaN
        return None if type(left) is type(right) and same else name
    return next((found for part in parts if (found := first_difference(*part))), None)


def _bits(tensor: torch.Tensor) -> bytes:
    content: bytes = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return content


def start(arguments: list[str], folder: Path) -> ForkServerProcess:
    """Start a command in `folder`; what it prints is appended to the file `printed` there."""
    folder.mkdir(parents=True, exist_ok=True)
    process = CONTEXT.Process(target=work, args=(arguments, str(folder)))
    process.start()
    return process


def work(arguments: list[str], folder: str) -> None:
    """Run a command as a process from a shell would, and end with its status."""
    # Workers of the data are to be forked from here, not from a server of their own.
    multiprocessing.set_start_method("fork", force=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    printed = os.open("printed", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(printed, stream.fileno())
    sys.argv = ["mnist_lightning", *arguments]
    try:
        runpy.run_module("mnist_lightning", run_name="__main__")
    except SystemExit as ended:
        status = int(ended.code or 0)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


_HELP = f"""Prove the promises on this machine: whole data, disjoint splits, the same seed twice,
and runs that are killed at random moments and resumed. It takes about a minute.

usage: {PROGRAM} verify [--config FILE] [options of fit]
The runs are short (2 epochs of 150 batches) unless the options say otherwise.

example: {PROGRAM} verify --config configs/digit_net.yaml
"""
