"""The command `resume`: continue a run from its newest intact checkpoint."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mnist_lightning import distributed
from mnist_lightning.cli.lightning_cli import DigitCLI, ExperimentParser
from mnist_lightning.cli.session import (
    prepare,
    run_lock,
    start_loggers,
    suggest_resume_option,
    train_and_show,
)
from mnist_lightning.cli.trust import TrustedConfig, check_network, trusted_config
from mnist_lightning.cli.watch_page import WatchPage, add_watch_option
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.files import rename_damaged, write_atomically
from mnist_lightning.networks.registry import WrongWeightsError
from mnist_lightning.runs import lookup, recent_checkpoints, run_directory
from mnist_lightning.runs.checkpoint import DamagedCheckpointError, read_signed_checkpoint
from mnist_lightning.runs.config import LENGTHS, find_conflicts
from mnist_lightning.runs.config_schema import InvalidConfigError
from mnist_lightning.runs.recovery import rename_damaged_config, rename_damaged_files
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import say
from mnist_lightning.training.compatibility import find_incompatibility
from mnist_lightning.training.distillation import read_teacher
from mnist_lightning.training.exact_resume import callback_state_error
from mnist_lightning.training.logger import truncate_logs
from mnist_lightning.training.registry import USER_SCHEMA


def make_parser() -> ExperimentParser:
    """Return the parser of the command."""
    parser = ExperimentParser(
        "resume",
        "Continue a run from its newest intact checkpoint, in its own directory. RUN is a run "
        "directory, a version number, a checkpoint file, or `last`, the newest run (default). "
        "More epochs may be given; other options that affect the weights cannot be overridden.",
        "last --trainer.max_epochs 20",
        takes_run=True,
    )
    add_watch_option(parser)
    return parser


def main(arguments: list[str]) -> int:
    """Continue a run from its newest intact checkpoint, in its own directory."""
    parser = make_parser()
    options, rest = parser.split(arguments)
    run, path = lookup.find(options.run or "last", options.root)
    if path is not None and path.suffix == ".safetensors":
        problem = f"{options.run} contains only weights, not the state of a training"
        raise UserError(f"{problem}; start a new run: {PROGRAM} fit --init_from {options.run}", 2)
    # Locked before it is read: another process may be about to save.
    lock = run_lock(run) if _has_config(run) else nullcontext()
    with WatchPage(options.watch) as page, lock:
        while True:
            try:
                return _resume_from(parser, run, path, rest, options.trust, page)
            except UnusableCheckpointError as error:
                if path is not None:
                    raise
                new_name = rename_damaged(error.path).name if distributed.is_rank_zero() else ""
                say(f"{error}; renamed the file to {new_name}; using the previous checkpoint")


def _has_config(run: Run) -> bool:
    return any(run.folder.glob("config.yaml*"))  # also a damaged one that was renamed


class UnusableCheckpointError(DamagedCheckpointError):
    """A checkpoint that is well-formed does not belong to this network or optimizer."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged: {reason}")
        self.path = path


def _resume_from(
    parser: ExperimentParser,
    run: Run,
    given: Path | None,
    rest: list[str],
    trust: bool,
    page: WatchPage,
) -> int:
    """Resume from the checkpoint given, or from the newest one that is intact."""
    first = distributed.is_rank_zero()
    run.refuse_links()
    if first:
        rename_damaged_config(run)
    path = given or recent_checkpoints.newest_checkpoint(run, move=first)
    checkpoint, signed = read_signed_checkpoint(path)
    if "config" not in checkpoint:
        runs = f"Runs that can be resumed: {PROGRAM} runs"
        raise UserError(f"{path} has no configuration: `fit` did not write it. {runs}")
    try:
        recent_checkpoints.validate_checkpoint(checkpoint)
    except DamagedCheckpointError as error:
        raise DamagedCheckpointError(f"{path}: {error}") from None
    base = _base_config(run, path, checkpoint, signed, trust, rest)
    if first and _has_config(run) and not run.config.is_file():
        run.write_config(checkpoint["config"], sign=signed)
    cli = DigitCLI(parser, rest, base, trust)
    prepare(cli)
    distributed.assert_same_path(path)
    return continue_run(cli, run, path, checkpoint, page)


def _base_config(
    run: Run, path: Path, checkpoint: dict[str, Any], signed: bool, trust: bool, rest: list[str]
) -> TrustedConfig:
    """Return the configuration to resume with: the run's `config.yaml`, or the checkpoint's."""
    base = None
    if run.config.is_file():
        config, own = run.read_signed_config()
        try:
            base = trusted_config(config, own, trust, rest)
        except InvalidConfigError as error:
            new_name = rename_damaged(run.config).name if distributed.is_rank_zero() else ""
            remedy = f"renamed the file to {new_name}; using {path.name}"
            say(f"{run.config} is damaged: {error}; {remedy}")
    try:
        # Also if there is a `config.yaml`: the two are compared.
        stored = trusted_config(checkpoint["config"], signed, trust, rest)
        base = base or stored
        base = base._replace(own=base.own and stored.own)
        check_network(base, checkpoint)
    except (InvalidConfigError, WrongWeightsError) as error:
        raise UnusableCheckpointError(path, str(error)) from None
    return base


def continue_run(
    cli: DigitCLI, run: Run, path: Path, checkpoint: dict[str, Any], page: WatchPage
) -> int:
    """Train on from a checkpoint of a run; return the exit status.

    Raises:
        UserError: an option differs that affects the weights, or the data differs.
        UnusableCheckpointError: the checkpoint is of another network or optimizer.
    """
    found = differences(cli, checkpoint["config"])
    if found:
        fix = "omit these options, or start a new run with fit"
        raise UserError(f"options differ from those of the run: {'; '.join(found)}; {fix}", 2)
    cli.datamodule.check_same_data(checkpoint["MNISTDataModule"])
    cli.make_trainer.loaded[path] = checkpoint
    try:
        cli.model.teacher = read_teacher(checkpoint)
    except WrongWeightsError as error:
        raise UnusableCheckpointError(path, str(error)) from None
    reason = find_incompatibility(cli.model, checkpoint)
    reason = reason or callback_state_error(cli.make_trainer.callbacks, checkpoint["callbacks"])
    if reason is not None:
        raise UnusableCheckpointError(path, reason)
    if run.config.is_file() and distributed.is_rank_zero():
        rename_damaged_files(run)
    done, ends = recent_checkpoints.progress(checkpoint), cli.config.trainer.max_epochs
    steps, logged_steps = checkpoint["global_step"], checkpoint["trainer"]["logged_steps"]
    if done.batches > cli.datamodule.train_batches:
        raise UnusableCheckpointError(
            path, f"its position is {done}, but an epoch has fewer batches"
        )
    if _is_finished(run, checkpoint["config"], cli, done.epochs):
        count = f"{done.epochs} of {max(ends, done.epochs)} epochs"
        longer = suggest_resume_option(cli.model, cli.complete_config(), done.epochs, steps)
        more = f"to continue: {PROGRAM} resume {run.reference} {longer}"
        if longer is None:
            more = "the learning-rate schedule ends here; to train longer, start a new run with fit"
        say(f"{run.folder} is finished: {count}; {more}")
        return 0
    if 0 <= ends < done.epochs + bool(done.batches):
        problem = f"--trainer.max_epochs {ends} is too small: {path} is already at {done}"
        raise UserError(f"{problem}; give a larger number", 2)
    start_loggers(cli, resumed=True)
    if run.config.is_file():
        if distributed.is_rank_zero():
            run.delete_temporary_files()
            truncate_logs(run.folder, steps, logged_steps, untrusted=not cli.own)
        say(f"resuming {run.folder} after {done}, from {path}")
        return train_and_show(cli, run, page, path)
    return _continue_in_new_run(cli, path, done, page)


def _continue_in_new_run(
    cli: DigitCLI, path: Path, done: recent_checkpoints.Progress, page: WatchPage
) -> int:
    """Train on from a checkpoint that is in no run directory; return the exit status."""
    run = distributed.run_on_rank_zero(lambda: run_directory.create_next(cli.root))
    say(f"{path} is not in a run directory; resuming after {done} in a new one: {run.folder}")
    with run_lock(run):
        for copy in (run.best, run.recent()) if distributed.is_rank_zero() else ():
            write_atomically(path.read_bytes(), copy)
        return train_and_show(cli, run, page, path)


def _is_finished(run: Run, saved: dict[str, Any], cli: DigitCLI, epochs: int) -> bool:
    """Tell whether the run is finished and no greater length is wanted."""
    wanted = cli.complete_config()["trainer"]
    same = all(wanted[name] == option_of(saved, name) for name in LENGTHS)
    reached = 0 <= wanted["max_epochs"] <= epochs
    complete = run.summary().get("state") == "finished" and run.best.exists()
    return complete and (reached or same)


def differences(cli: DigitCLI, saved: dict[str, Any]) -> list[str]:
    """List the options that differ from those of a saved run and affect its weights."""
    config = cli.complete_config()
    found = find_conflicts(saved, config, USER_SCHEMA)
    if cli.model.schedule_needs_run_length:
        found += [
            f"--trainer.{name} is {config['trainer'][name]} here, {option_of(saved, name)} "
            "in the checkpoint, and the learning-rate schedule depends on it"
            for name in ("max_epochs", "max_steps")
            if config["trainer"][name] != option_of(saved, name)
        ]
    return found


def option_of(config: dict[str, Any], name: str) -> Any:
    """Look up an option of the trainer in a saved configuration, which may be incomplete."""
    return config.get("trainer", {}).get(name, USER_SCHEMA.sections["trainer"][name].default)
