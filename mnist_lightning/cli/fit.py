"""fit and resume: what surrounds a Trainer's work on a run."""

import hashlib
import shlex
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from mnist_lightning import distributed
from mnist_lightning.cli import console
from mnist_lightning.cli.lightning_cli import DigitCLI, quieten
from mnist_lightning.cli.parser import (
    asks_for_help,
    read_seeds,
    root_in,
    take_option,
    take_run,
    take_switch,
)
from mnist_lightning.cli.trust import TrustedConfig, blame, check_network, trusted_config
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.files import move_aside, write_atomically
from mnist_lightning.networks.registry import WrongWeightsError, describe, path_and_arguments
from mnist_lightning.runs import lookup, run_directory
from mnist_lightning.runs.checkpoint import (
    DamagedCheckpointError,
    network_weights,
    read_checkpoint,
    read_signed_checkpoint,
)
from mnist_lightning.runs.class_names import class_names
from mnist_lightning.runs.config import LENGTHS, conflicts
from mnist_lightning.runs.config_schema import InvalidConfigError, check_config
from mnist_lightning.runs.recovery import move_damaged_config, move_damaged_files
from mnist_lightning.runs.resumable import newest_checkpoint, progress, validate_checkpoint
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.runs.signature import signing_key
from mnist_lightning.text import say
from mnist_lightning.training.logger import cut_back
from mnist_lightning.training.preflight import refuse_what_cannot_train, why_not_restorable
from mnist_lightning.training.registry import USER_SCHEMA
from mnist_lightning.training.resumability import refuse_callbacks, why_not_loadable
from mnist_lightning.training.runner import goes_on_by, train


def fit(arguments: list[str]) -> int:
    """Train a network, keep its checkpoints, and test the best one; with each seed, if asked."""
    quieten()
    checkpoint, rest = take_option("--ckpt_path", arguments)
    seeds, rest = take_option("--seeds", rest)
    init_from, rest = take_option("--init_from", rest)
    into, rest = take_option("--into", rest)
    trust, rest = take_switch("--trust", rest)
    if checkpoint is not None:
        if seeds is not None:
            raise UserError("--ckpt_path goes on with one run, --seeds makes several: give one", 2)
        if init_from is not None:
            raise UserError("--ckpt_path goes on with a run, --init_from begins one: give one", 2)
        if into is not None:
            raise UserError("--ckpt_path goes on with a run, --into is a new one's: give one", 2)
        return resume([checkpoint, *rest, *(["--trust"] if trust else [])])
    if seeds is None:
        return _fit_once(rest, init_from, into=into, trust=trust)[0]
    if into is not None:
        raise UserError("--seeds makes several runs, --into is one's folder: give one", status=2)
    return _fit_each(read_seeds(seeds), rest, init_from, trust)


def _fit_each(seeds: list[int], arguments: list[str], init_from: str | None, trust: bool) -> int:
    """Make a run with each seed; where one fails or is interrupted, show those before it."""
    if take_option("--seed_everything", arguments)[0] is not None:
        raise UserError("both --seeds and --seed_everything: give one", status=2)
    finished: list[Run] = []
    try:
        for seed in seeds:
            each = [*arguments, "--seed_everything", str(seed)]
            status, run = _fit_once(each, init_from, ends=True, trust=trust)
            if status != 0:
                left = seeds[seeds.index(seed) + 1 :]
                if left:
                    say(f"not begun: --seeds {','.join(map(str, left))}")
                return status
            if run is not None:
                finished.append(run)
    finally:
        console.seeds(console.make_console(), finished)
    return 0


def _fit_once(
    arguments: list[str],
    init_from: str | None,
    ends: bool = False,
    into: str | None = None,
    trust: bool = False,
) -> tuple[int, Run | None]:
    cli = DigitCLI("fit", arguments, _FIT_HELP, trust=trust)
    if ends and cli.has_no_end:
        raise UserError("--seeds needs runs that end: give --trainer.max_epochs", status=2)
    _begin(cli)
    origin = None if init_from is None else _take_weights(cli, init_from)
    if cli.config.trainer.fast_dev_run:
        return train(cli, None), None
    if cli.config.auto_resume and into is not None:
        raise UserError("--into names a new run's folder, --auto_resume an old one: give one", 2)
    if cli.config.auto_resume:
        earlier = distributed.agreed(lambda: _newest_alike(cli, origin, trust))
        if earlier is not None:
            with _kept_from_others(earlier):
                path = newest_checkpoint(earlier, move=distributed.is_first())
                return _go_on(cli, earlier, path, read_checkpoint(path)), earlier
    run = distributed.agreed(
        lambda: (
            run_directory.claim(cli.root) if into is None else run_directory.create_at(Path(into))
        )
    )
    with _kept_from_others(run):
        return train(cli, run, init_from=origin), run


def _begin(cli: DigitCLI) -> None:
    """Join the other processes of the run, if any; read the data; find what cannot work."""
    refuse_callbacks(cli.callbacks, cli.config.trainer.accumulate_grad_batches)
    distributed.join(cli.make_trainer())
    cli.load_data()
    distributed.agreed(lambda: refuse_what_cannot_train(cli))


def _kept_from_others(run: Run) -> AbstractContextManager[Any]:
    """Lock a run, by the first of the processes that work on it."""
    held: list[AbstractContextManager[Any]] = [nullcontext()]

    def hold() -> None:
        if distributed.is_first():  # they may not be joined yet
            held[0] = run.lock()

    distributed.agreed(hold)
    return held[0]


def _take_weights(cli: DigitCLI, reference: str) -> str:
    """Begin with the weights of another run's network; say whose, and which."""
    run, path = lookup.find(reference, cli.root)
    path = path or run.best_checkpoint()
    checkpoint = read_checkpoint(path)
    theirs, mine = checkpoint.get("network"), describe(cli.model.network)
    if theirs is not None:
        path_and_arguments(theirs)
    if theirs != mine:
        raise UserError(
            f"--init_from: the network in {path} is another than this run's; "
            "they have to be the same: see --model.network, here "
            f"{_as_options(theirs, mine)}",
            status=2,
        )
    try:
        cli.model.network.load_state_dict(network_weights(checkpoint))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"--init_from: the weights in {path} do not fit: {reason}") from None
    say(f"beginning with the weights in {path}")
    return f"{path} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def _as_options(network: dict[str, Any] | None, other: dict[str, Any]) -> str:
    """The options that make a network, of one that `other` is not."""
    if network is None:
        return "it does not say which it is"
    option, arguments = "--model.network", network["init_args"] or {}
    named = [f"{option} {shlex.quote(network['class_path'].rsplit('.', 1)[-1])}"]
    if network["class_path"] == other["class_path"]:
        named, theirs = [], other["init_args"] or {}
        arguments = {name: of for name, of in arguments.items() if of != theirs.get(name)}
    return " ".join(
        [*named, *(shlex.join([f"{option}.{name}", str(of)]) for name, of in arguments.items())]
    )


def _newest_alike(cli: DigitCLI, origin: str | None, trust: bool) -> Run | None:
    """The newest run of the same options that can be gone on with; say which are passed over."""
    wanted = cli.complete_config()["trainer"]
    for run in reversed(list(run_directory.list_runs(cli.root))):
        if not run.config.is_file() or not any(run.checkpoints.glob("last*.ckpt")):
            continue
        try:
            saved, own = run.read_signed_config()
            check_config(saved, USER_SCHEMA, class_names(saved))
            if _differences(cli, saved) or run.summary().get("init_from") != origin:
                continue
            newest, signed = read_signed_checkpoint(newest_checkpoint(run))
            if not trust and not (own and signed) and signing_key() is not None:
                raise UserError("it was not made here; --trust allows it")
            done = progress(newest)
        except UserError as error:
            say(f"passing over {run.folder}: {error}")
            continue
        # Another length or another test would be another figure, however equal the weights.
        same_test = wanted["limit_test_batches"] == _trainer_option(saved, "limit_test_batches")
        if same_test and not 0 <= wanted["max_epochs"] < done.epochs + bool(done.batches):
            return run
    say("no run of the same options to go on with: this is a new one")
    return None


def resume(arguments: list[str]) -> int:
    """Go on with a run from its newest whole checkpoint, in its own folder."""
    quieten()
    trust, arguments = take_switch("--trust", arguments)
    reference, rest = take_run(arguments)
    if asks_for_help(rest):
        DigitCLI("resume", rest, _RESUME_HELP)
    run, path = lookup.find("last" if reference is None else reference, root_in(rest))
    # Locked before it is read: another process may be about to save.
    in_run = any(run.folder.glob("config.yaml*"))  # also a damaged one that was moved aside
    with _kept_from_others(run) if in_run else nullcontext():
        while True:
            try:
                return _resume_from(run, path, rest, trust, in_run)
            except UnusableCheckpointError as error:
                if path is not None:
                    raise
                kept = move_aside(error.path).name if distributed.is_first() else ""
                say(f"{error}; kept as {kept}; going back to the one before")


class UnusableCheckpointError(DamagedCheckpointError):
    """A checkpoint that is well-formed does not belong to this network or optimizer."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged: {reason}")
        self.path = path


def _resume_from(run: Run, given: Path | None, rest: list[str], trust: bool, in_run: bool) -> int:
    """Resume from the checkpoint given, or from the newest one that is intact."""
    first = distributed.is_first()
    run.refuse_links()
    if first:
        move_damaged_config(run)
    path = given or newest_checkpoint(run, move=first)
    checkpoint, signed = read_signed_checkpoint(path)
    if "config" not in checkpoint:
        raise UserError(
            f"{path} was not made by `fit`: it does not say with which options; to go on with "
            f"another: {PROGRAM} resume RUN, of those that `{PROGRAM} runs` lists"
        )
    try:
        validate_checkpoint(checkpoint)
    except DamagedCheckpointError as error:
        raise DamagedCheckpointError(f"{path}: {error}") from None
    with blame(path, signed):
        base = _base_config(run, path, checkpoint, signed, trust, rest)
    with blame(path, base.own and signed):
        if first and in_run and not run.config.is_file():
            run.write_config(checkpoint["config"], sign=signed)
        cli = DigitCLI("resume", rest, _RESUME_HELP, base, trust)
        _begin(cli)
        distributed.refuse_to_differ(path)
        return _go_on(cli, run, path, checkpoint)


def _base_config(
    run: Run,
    path: Path,
    checkpoint: dict[str, Any],
    signed: bool,
    trust: bool,
    arguments: list[str],
) -> TrustedConfig:
    """Return the configuration to resume with: the run's `config.yaml`, or the checkpoint's."""
    base = None
    if run.config.is_file():
        config, own = run.read_signed_config()
        try:
            base = trusted_config(config, own, trust, arguments)
        except InvalidConfigError as error:
            aside = move_aside(run.config).name if distributed.is_first() else ""
            say(f"{run.config} is damaged: {error}; kept as {aside}; using that of {path.name}")
    try:
        base = base or trusted_config(checkpoint["config"], signed, trust, arguments)
        check_network(base, checkpoint)
    except (InvalidConfigError, WrongWeightsError) as error:
        raise UnusableCheckpointError(path, str(error)) from None
    return base


def _go_on(cli: DigitCLI, run: Run, path: Path, checkpoint: dict[str, Any]) -> int:
    found = _differences(cli, checkpoint["config"])
    if found:
        raise UserError(
            f"this is not the run that the checkpoint belongs to: {'; '.join(found)}; "
            "leave these out, or start a new run with fit",
            status=2,
        )
    cli.datamodule.refuse_other_data(checkpoint["MNISTDataModule"])
    reason = why_not_restorable(cli.model, checkpoint)
    reason = reason or why_not_loadable(cli.callbacks, checkpoint["callbacks"])
    if reason is not None:
        raise UnusableCheckpointError(path, reason)
    if run.config.is_file() and distributed.is_first():
        move_damaged_files(run)
    done, ends = progress(checkpoint), cli.config.trainer.max_epochs
    if _is_finished(run, checkpoint["config"], cli, done.epochs):
        count = f"{done.epochs} of {max(ends, done.epochs)} epochs"
        longer = goes_on_by(cli, done.epochs, checkpoint["global_step"])
        more = f"to go on: {PROGRAM} resume {run.reference} {longer}"
        if longer is None:
            more = "its learning-rate schedule spanned them; for more, start a new run with fit"
        say(f"{run.folder} is finished: {count}; {more}")
        return 0
    if 0 <= ends < done.epochs + bool(done.batches):
        raise UserError(f"{path} is from {done}; --trainer.max_epochs {ends} is behind it", 2)
    if run.config.is_file():
        if distributed.is_first():
            run.clear_away()
            cut_back(
                run.folder,
                checkpoint["global_step"],
                checkpoint["trainer"]["logged_steps"],
            )
        say(f"going on with {run.folder} after {done}, from {path}")
        return train(cli, run, path, done.epochs)
    own = distributed.agreed(lambda: run_directory.claim(cli.root))
    say(f"{path} lies in no run's folder: going on in a new one, {own.folder}, after {done}")
    with _kept_from_others(own):
        for copy in (own.best, own.recent()) if distributed.is_first() else ():
            write_atomically(path.read_bytes(), copy)
        return train(cli, own, path, done.epochs)


def _is_finished(run: Run, saved: dict[str, Any], cli: DigitCLI, epochs: int) -> bool:
    """Tell whether the run came to its end, and is not asked to go on beyond it."""
    wanted = cli.complete_config()["trainer"]
    same = all(wanted[name] == _trainer_option(saved, name) for name in LENGTHS)
    reached = 0 <= wanted["max_epochs"] <= epochs
    complete = run.summary().get("state") == "finished" and run.best.exists()
    return complete and (reached or same)


def _differences(cli: DigitCLI, saved: dict[str, Any]) -> list[str]:
    """What keeps the options from going on with a run that was made with `saved`."""
    config = cli.complete_config()
    found = conflicts(saved, config, USER_SCHEMA)
    if cli.model.needs_run_length(cli.model.lr_scheduler_factory):
        found += [
            f"--trainer.{name} is {config['trainer'][name]} here, {_trainer_option(saved, name)} "
            "in the checkpoint, and the learning-rate schedule spans the whole run"
            for name in ("max_epochs", "max_steps")
            if config["trainer"][name] != _trainer_option(saved, name)
        ]
    return found


def _trainer_option(config: dict[str, Any], name: str) -> Any:
    """Look up an option of the trainer in a saved configuration, which may be incomplete."""
    return config.get("trainer", {}).get(name, USER_SCHEMA.sections["trainer"][name].default)


_FIT_HELP = f"""Train a network on MNIST, keep its best checkpoint, and test that.

usage: {PROGRAM} fit [--config FILE]... [--seeds 1..5] [--init_from RUN] [options]
--seeds 1..5 (or 1,2,7) makes a run with each of these seeds, and closes with their mean, standard
deviation and 95 % interval.
--init_from RUN begins with the weights of another run's best checkpoint.
--trust allows the classes that a --config file names; otherwise each class that is not part of
this program or of its registered libraries has to be named in the command.
--into FOLDER keeps the run there, in place of the next free lightning_logs/version_N.

examples:
  {PROGRAM} fit
  {PROGRAM} fit --trainer.max_epochs 3 --model.optimizer SGD --model.optimizer.lr 0.1
  {PROGRAM} fit --config configs/classic_cnn.yaml --seeds 1..5
"""
_RESUME_HELP = f"""Go on with a run from its newest whole checkpoint, in its own folder.

usage: {PROGRAM} resume [RUN] [options]
RUN is a run's folder, its version number, a checkpoint file, or `last`, the newest run (default).
The run keeps its options; only options that do not affect the weights may be overridden.
--trust allows the classes that a run from elsewhere names; your own runs need no consent.

example: {PROGRAM} resume last --trainer.max_epochs 20
"""
