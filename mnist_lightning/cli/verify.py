"""The command `verify`: check determinism, kill and resume, and the data with real runs."""

import json
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

from mnist_lightning import posix
from mnist_lightning.cli.lightning_cli import DigitCLI, ExperimentParser
from mnist_lightning.cli.parser import option_value
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.runs.checkpoint import read_checkpoint
from mnist_lightning.runs.metrics_csv import METRICS_FILE
from mnist_lightning.runs.recent_checkpoints import progress
from mnist_lightning.runs.run_directory import LOGS_FOLDER, Run
from mnist_lightning.text import plural, say

KILLS = 3
# Options of a run of a few seconds, unless the command overrides them.
SHORT_RUN = {
    "--trainer.max_epochs": "2",
    "--trainer.limit_train_batches": "150",
    "--trainer.limit_val_batches": "2",
    "--trainer.limit_test_batches": "2",
    "--autosave": "0.002",
}

PRELOADED = ["mnist_lightning.cli.verify", "mnist_lightning.cli.fit"]
posix.fork_server().set_forkserver_preload(PRELOADED)


def make_parser() -> ExperimentParser:
    """Return the parser of the command."""
    return ExperimentParser(
        "verify",
        "Check on this machine that the data is intact, that the splits are disjoint, that the "
        "same seed gives the same weights, and that a run resumes exactly after kills at random "
        "moments. It takes about half a minute. The runs are short (2 epochs of 150 batches), "
        "unless the options override this.",
        "--config configs/digit_net.yaml",
    )


def main(arguments: list[str]) -> int:
    """Run each check and report its result; return 1 if one fails."""
    parser = make_parser()
    options, rest = parser.split(arguments)
    for option, value in SHORT_RUN.items():
        if option_value(option, rest) is None:
            rest += [option, value]
    cli = DigitCLI(parser, rest, trust=options.trust)
    start_time = time.perf_counter()
    if not _check_data(cli):
        return 1
    results = [True, _check_splits(cli), *_check_determinism(cli)]
    failed = results.count(False)
    summary = f"{failed} of {len(results)} checks failed" if failed else "all checks passed"
    say(f"{summary} ({time.perf_counter() - start_time:.0f} s)")
    return 1 if failed else 0


def _report(claim: str, passed: bool, details: str) -> bool:
    say(f"{'passed' if passed else 'FAILED'}  {claim}: {details}", flush=True)
    return passed


def _check_data(cli: DigitCLI) -> bool:
    try:
        cli.load_data()
    except UserError as error:
        return _report("the data is intact", False, str(error))
    data, fallback = cli.datamodule.data, cli.datamodule.reader.fallback_reason
    details = f"{data.name}, every file read and checked, checksum {data.checksum[:12]}"
    if fallback is not None:
        details += f" (this is not MNIST: {fallback})"
    return _report("the data is intact", True, details)


def _check_splits(cli: DigitCLI) -> bool:
    data = cli.datamodule
    train, val = set(data.train_indices.tolist()), set(data.val_indices.tolist())
    complete = len(train | val) == len(data.data.train_labels)
    counts = f"{len(train):,} images to train, {len(val):,} to validate, {len(train & val)} in both"
    return _report("the splits are disjoint", complete and not train & val, counts)


def _check_determinism(cli: DigitCLI) -> list[bool]:
    """Train twice, and a third time with kills; compare the checkpoints and logs of the three."""
    config = cli.complete_config()
    config["auto_resume"] = False
    config["trainer"]["default_root_dir"] = None
    config["data"]["data_dir"] = str(cli.datamodule.data_dir.resolve())
    if cli.datamodule.folder is not None:
        config["data"]["folder"] = str(cli.datamodule.folder.resolve())
    # The user allowed these classes in this command, whether or not its runs can be signed.
    fit = ["fit", "--config", json.dumps(config), "--trust"]
    with tempfile.TemporaryDirectory(prefix="mnist_lightning_verify_") as root:
        first, second, killed = (Path(root) / name for name in ("first", "second", "killed"))
        _run_to_end(fit, first)
        _run_to_end(fit, second)
        difference = first_difference_of_runs(_run(first), _run(second))
        details = f"two runs with seed {config['seed_everything']}: "
        details += difference or "equal in every bit"
        repeats = _report("the same seed gives the same weights", difference is None, details)
        max_wait = _run(first).summary()["fit_seconds"] / (KILLS + 1)
        moments = _kill_and_resume(fit, killed, max_wait)
        if not moments:
            raise UserError("the run is too short for this check: set more batches or epochs")
        difference = first_difference_of_runs(_run(first), _run(killed))
        details = f"killed {plural(len(moments), 'time')} ({', '.join(moments)}) and resumed: "
        details += difference or "equal to the uninterrupted run in every bit and logged metric"
        resumes = _report("a killed run resumes exactly", difference is None, details)
    if not repeats and not config["trainer"]["deterministic"]:
        say(f"        try: {PROGRAM} verify --trainer.deterministic true")
    return [repeats, resumes]


def _kill_and_resume(fit: list[str], folder: Path, max_wait: float) -> list[str]:
    """Kill a run at random moments, at most `max_wait` seconds apart; return where it was."""
    run = _run(folder)
    command, moments = fit, []
    for _ in range(KILLS):
        before = _save_time(run)
        process = start(command, folder)
        while process.is_alive() and _save_time(run) == before:
            time.sleep(0.005)
        time.sleep(random.uniform(0, max_wait))
        process.kill()
        process.join()
        if not posix.was_killed(process.exitcode):
            break  # it had already finished
        moments.append(f"after {progress(read_checkpoint(run.recent()))}")
        command = ["resume", "--trust"]
    _run_to_end(command, folder)
    return moments


def _save_time(run: Run) -> int:
    return run.recent().stat().st_mtime_ns if run.recent().exists() else 0


def _run_to_end(command: list[str], folder: Path) -> None:
    process = start(command, folder)
    process.join()
    if process.exitcode != 0:
        last = (folder / "printed").read_text().strip().splitlines()[-1]
        raise UserError(f"a run with this configuration fails: {last}")


def _run(folder: Path) -> Run:
    return Run(folder / LOGS_FOLDER / "version_0")


def first_difference_of_runs(left: Run, right: Run) -> str | None:
    """Return where the checkpoints or the logs of two runs differ first; None if nowhere."""
    for name in ("last.ckpt", "best.ckpt"):
        pair = (read_checkpoint(run.checkpoints / name) for run in (left, right))
        if where := first_difference(name, *pair):
            return f"they differ in {where}"
    tables = [(run.folder / METRICS_FILE).read_bytes() for run in (left, right)]
    return None if tables[0] == tables[1] else f"they differ in {METRICS_FILE}"


def first_difference(name: str, left: Any, right: Any) -> str | None:
    """Compare two checkpoints, or parts of them, at tolerance 0; return where they differ first."""
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        bits = (each.detach().contiguous().reshape(-1).view(torch.uint8) for each in (left, right))
        same = left.dtype == right.dtype and left.shape == right.shape
        return None if same and torch.equal(*bits) else name  # NaN is compared too
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        left, right = dict(enumerate(left)), dict(enumerate(right))
    if isinstance(left, dict) and isinstance(right, dict):
        if left.keys() != right.keys():
            return f"{name} (keys)"
        parts = ((f"{name}.{key}", left[key], right[key]) for key in left)
        return next((where for part in parts if (where := first_difference(*part))), None)
    same = left == right or (left != left and right != right)  # both are NaN
    return None if type(left) is type(right) and same else name


def start(arguments: list[str], folder: Path) -> ForkServerProcess:
    """Start a command in `folder`; append its output to the file `printed` there."""
    folder.mkdir(parents=True, exist_ok=True)
    process = posix.fork_server().Process(target=work, args=(arguments, str(folder)))
    process.start()
    return process


def work(arguments: list[str], folder: str) -> None:
    """Run a command as a process that a shell started, and end with its exit status."""
    # Fork the workers of the data from here, not from another fork server.
    posix.fork_workers()
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
