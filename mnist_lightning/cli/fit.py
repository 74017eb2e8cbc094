"""The command `fit`: train a network, save its checkpoints, and test the best one."""

import hashlib
import shlex
from pathlib import Path
from typing import Any

from mnist_lightning import distributed
from mnist_lightning.cli import console
from mnist_lightning.cli.lightning_cli import DigitCLI, configure_warnings
from mnist_lightning.cli.parser import read_seeds, take_option, take_switch
from mnist_lightning.cli.resume import continue_run, differences, option_of
from mnist_lightning.cli.resume import main as resume
from mnist_lightning.cli.session import prepare, run_lock, train_and_show
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.networks.registry import describe, parse_description
from mnist_lightning.runs import lookup, run_directory
from mnist_lightning.runs.checkpoint import (
    network_weights,
    read_checkpoint,
    read_signed_checkpoint,
)
from mnist_lightning.runs.class_names import class_names
from mnist_lightning.runs.config import is_unbounded
from mnist_lightning.runs.config_schema import check_config
from mnist_lightning.runs.resumable import newest_checkpoint, progress
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.signature import signing_key
from mnist_lightning.text import say
from mnist_lightning.training.registry import USER_SCHEMA


def main(arguments: list[str]) -> int:
    """Train a network, save its checkpoints, and test the best one; with `--seeds`, once each."""
    configure_warnings()
    checkpoint, rest = take_option("--ckpt_path", arguments)
    seeds, rest = take_option("--seeds", rest)
    init_from, rest = take_option("--init_from", rest)
    run_dir, rest = take_option("--run_dir", rest)
    trust, rest = take_switch("--trust", rest)
    if checkpoint is not None:
        others = {"--seeds": seeds, "--init_from": init_from, "--run_dir": run_dir}
        for name, value in others.items():
            if value is not None:
                raise UserError(f"--ckpt_path resumes a run, {name} starts a new one: give one", 2)
        return resume([checkpoint, *rest, *(["--trust"] if trust else [])])
    if seeds is None:
        return _fit_once(rest, init_from, run_dir=run_dir, trust=trust)[0]
    if run_dir is not None:
        raise UserError("--seeds makes several runs, --run_dir names one: give one", status=2)
    return _fit_each(read_seeds(seeds), rest, init_from, trust)


def _fit_each(seeds: list[int], arguments: list[str], init_from: str | None, trust: bool) -> int:
    """Make a run with each seed; if one fails or is interrupted, show those before it."""
    if take_option("--seed_everything", arguments)[0] is not None:
        raise UserError("both --seeds and --seed_everything: give one", status=2)
    finished: list[Run] = []
    try:
        for seed in seeds:
            each = [*arguments, "--seed_everything", str(seed)]
            status, run = _fit_once(each, init_from, bounded=True, trust=trust)
            if status != 0:
                left = seeds[seeds.index(seed) + 1 :]
                if left:
                    say(f"not started: --seeds {','.join(map(str, left))}")
                return status
            if run is not None:
                finished.append(run)
    finally:
        console.show_seeds(console.make_console(), finished)
    return 0


def _fit_once(
    arguments: list[str],
    init_from: str | None,
    bounded: bool = False,
    run_dir: str | None = None,
    trust: bool = False,
) -> tuple[int, Run | None]:
    """Make one run, or resume one with `--auto_resume`; return the exit status and the run."""
    cli = DigitCLI("fit", arguments, _HELP, trust=trust)
    if bounded and is_unbounded(cli.config):
        raise UserError("--seeds needs runs that end: give --trainer.max_epochs", status=2)
    if cli.config.auto_resume and run_dir is not None:
        raise UserError("--run_dir starts a new run, --auto_resume may resume one: give one", 2)
    prepare(cli)
    origin = None if init_from is None else load_initial_weights(cli, init_from)
    if cli.config.trainer.fast_dev_run:
        return train_and_show(cli, None), None
    if cli.config.auto_resume:
        earlier = distributed.run_on_rank_zero(lambda: find_matching_run(cli, origin, trust))
        if earlier is not None:
            with run_lock(earlier):
                path = newest_checkpoint(earlier, move=distributed.is_rank_zero())
                return continue_run(cli, earlier, path, read_checkpoint(path)), earlier
    run = distributed.run_on_rank_zero(
        lambda: (
            run_directory.create_next(cli.root)
            if run_dir is None
            else run_directory.create_at(Path(run_dir))
        )
    )
    with run_lock(run):
        return train_and_show(cli, run, init_from=origin), run


def load_initial_weights(cli: DigitCLI, reference: str) -> str:
    """Load the weights of another run's network; return their path and digest.

    Raises:
        UserError: they are those of another network.
    """
    run, path = lookup.find(reference, cli.root)
    path = path or run.best_checkpoint()
    checkpoint = read_checkpoint(path)
    theirs, mine = checkpoint.get("network"), describe(cli.model.network)
    if theirs != mine:
        needed = _as_options(theirs, mine) if theirs else "a network that it does not describe"
        raise UserError(f"--init_from: network mismatch: {path} needs {needed}", status=2)
    try:
        cli.model.network.load_state_dict(network_weights(checkpoint))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"--init_from: the weights in {path} do not fit: {reason}") from None
    say(f"initial weights: {path}")
    return f"{path} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def _as_options(network: dict[str, Any], other: dict[str, Any]) -> str:
    """Return the options that build a network, as far as they differ from those of `other`."""
    option, (class_path, arguments) = "--model.network", parse_description(network)
    arguments = arguments or {}
    named = [f"{option} {shlex.quote(class_path.rsplit('.', 1)[-1])}"]
    if class_path == other["class_path"]:
        named, theirs = [], other["init_args"] or {}
        arguments = {name: of for name, of in arguments.items() if of != theirs.get(name)}
    return " ".join(
        [*named, *(shlex.join([f"{option}.{name}", str(of)]) for name, of in arguments.items())]
    )


def find_matching_run(cli: DigitCLI, origin: str | None, trust: bool) -> Run | None:
    """Return the newest run with the same options that can be resumed; report skipped ones."""
    wanted = cli.complete_config()["trainer"]
    for run in reversed(list(run_directory.list_runs(cli.root))):
        if not run.config.is_file() or not any(run.checkpoints.glob("last*.ckpt")):
            continue
        try:
            saved, own = run.read_signed_config()
            check_config(saved, USER_SCHEMA, class_names(saved))
            if differences(cli, saved) or run.summary().get("init_from") != origin:
                continue
            newest, signed = read_signed_checkpoint(newest_checkpoint(run))
            if not trust and not (own and signed) and signing_key() is not None:
                raise UserError("it was not made on this machine; add --trust to allow it")
            done = progress(newest)
        except UserError as error:
            say(f"skipped {run.folder}: {error}")
            continue
        # With another length or another test its results would differ.
        same_test = wanted["limit_test_batches"] == option_of(saved, "limit_test_batches")
        if same_test and not 0 <= wanted["max_epochs"] < done.epochs + bool(done.batches):
            return run
    say("No matching run to resume; starting a new one.")
    return None


_HELP = f"""Train a network, save its best checkpoint, and test it.

usage: {PROGRAM} fit [--config FILE]... [--seeds 1..5] [--init_from RUN] [options]
--seeds 1..5 (or 1,2,7) makes a run with each of these seeds, and shows their mean, standard
deviation and 95 % interval.
--init_from RUN starts from the weights of another run's best checkpoint.
--run_dir DIR saves the run there instead of in the next free lightning_logs/version_N.
--trust allows the classes that a --config file names; otherwise each class that is not registered
has to be named in the command.

examples:
  {PROGRAM} fit
  {PROGRAM} fit --trainer.max_epochs 3 --model.optimizer SGD --model.optimizer.lr 0.1
  {PROGRAM} fit --config configs/classic_cnn.yaml --seeds 1..5
"""
