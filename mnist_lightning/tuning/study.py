"""The command `sweep`."""

import hashlib
import json
import logging
import os
import re
import shlex
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any
from zlib import crc32

import optuna
from numpy.random import SeedSequence
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live

from mnist_lightning.cli import console as show
from mnist_lightning.cli.lightning_cli import DigitCLI, quieten
from mnist_lightning.cli.parser import (
    CommandParser,
    read_files,
    runs_root,
    take_option,
    take_switch,
)
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.files import make_folder, read_yaml, refuse_links
from mnist_lightning.tuning import results, search_space
from mnist_lightning.tuning.database import check_storage
from mnist_lightning.tuning.trial_runner import Desk, Plan, Worker, owner_of

PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "asha": lambda: SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    "median": lambda: MedianPruner(n_startup_trials=5, n_warmup_steps=0),
    "none": NopPruner,
}
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    # Values that are being tried count as bad ones, so that workers do not all try the same.
    "tpe": lambda seed: TPESampler(seed=seed, constant_liar=True),
    "random": lambda seed: RandomSampler(seed=seed),
}
REFRESH_SECONDS = 1.0
ALIKE = 3  # trials in a row that fail for the same reason end a sweep
LONGEST = 250  # characters of a file's name


def main(arguments: list[str]) -> int:
    """Search until there are as many trials as asked for."""
    parser = CommandParser(
        "sweep",
        "Search for the options of the highest val/accuracy. Each trial is a run of its own. "
        "Killed and started again, with the same command, it goes on.",
        "--config configs/mlp.yaml --space search_space.yaml --trials 30 --workers 2",
    )
    parser.add_argument("--space", type=Path, required=True, metavar="FILE", help=_SPACE_HELP)
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="(default: 20)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="at once (default: 1)")
    parser.add_argument("--name", help="of the sweep (default: the space's)")
    parser.add_argument("--sampler", choices=list(SAMPLERS), default="tpe", help="(default: tpe)")
    parser.add_argument("--pruner", choices=list(PRUNERS), default="asha", help="(default: asha)")
    parser.add_argument("--seed", type=int, default=1, help="of the sampler (default: 1)")
    parser.add_argument(
        "--storage",
        metavar="WHERE",
        help="a database's URL, or a file FILE.journal, which several machines may share "
        "(default: a file of SQLite in the sweep's folder)",
    )
    parser.epilog = f"Other options are those of fit, for every trial. {parser.epilog}"
    asked, fit_options = parser.parse_known_args(arguments)
    if asked.trials < 1 or asked.workers < 1:
        raise UserError("--trials and --workers: at least 1", status=2)
    quieten()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("optuna").propagate = False
    found = search_space.read(asked.space)
    trust, _ = take_switch("--trust", fit_options)
    if not trust:
        search_space.refuse_foreign_space(found, asked.space, fit_options)
    # Its mistakes are found before any trial; a trial that fails later stops nobody.
    _refuse_what_no_trial_can_do(fit_options, found)
    name = asked.name or asked.space.stem
    if not re.fullmatch(r"\w[\w. -]{0,99}", name):
        raise UserError(f"--name {name}: give letters, digits, '.', '-' and '_'", status=2)
    root = runs_root(take_option("--trainer.default_root_dir", fit_options)[0])
    folder = root / "sweeps" / name
    _refuse_links(root, folder)
    make_folder(folder, "--trainer.default_root_dir")
    options = [*fit_options, "--trainer.limit_test_batches=0", "--auto_resume=false"]
    threads = max(1, (os.cpu_count() or 1) // asked.workers)
    plan = Plan(found, options, root, folder, threads, owner_of(folder))
    with _damage_reported(asked.storage or str(folder)):
        study = _study(asked, name, folder, _digest(found, fit_options), trust)
        console = show.make_console()
        before = len(study.get_trials(deepcopy=False))
        known = f", {before} of them begun before" if before else ""
        show.line(console, f"sweep {name}: {asked.trials} trials{known}, {asked.workers} at a time")
        status = _search(study, plan, asked.trials, asked.workers, console)
        return _close(study, plan, trust, console, status)


_SPACE_HELP = (
    "a YAML file, a line an option: `model.optimizer.init_args.lr: {log_uniform: [1e-4, 1e-1]}`, "
    "uniform, int, log_int, `{choice: [a, b]}`"
)


def _refuse_what_no_trial_can_do(fit_options: list[str], found: search_space.Space) -> None:
    """Find mistakes before any trial; a trial that fails later stops nobody."""
    for name in ("--seeds", "--ckpt_path", "--into"):
        if take_option(name, fit_options)[0] is not None:
            raise UserError(f"{name} is for one run; a sweep makes its own: leave it out", status=2)
    _, parsed = take_option("--init_from", fit_options)
    trust, parsed = take_switch("--trust", parsed)
    cli = DigitCLI("sweep", [*parsed, *search_space.as_options(found.example)], trust=trust)
    if cli.has_no_end:
        raise UserError("a sweep needs runs that end: give --trainer.max_epochs", status=2)
    if 0 in (cli.config.data.val_size, cli.config.trainer.limit_val_batches):
        raise UserError(
            "a sweep chooses by the images held out, and there are none: give --data.val_size 5000",
            status=2,
        )


def _study(asked: Any, name: str, folder: Path, digest: str, trust: bool) -> optuna.Study:
    """Make the study, or find it; it stays with the space and the options it was made with."""
    where = asked.storage or f"sqlite:///{folder / 'study.db'}"
    try:
        if not trust:
            check_storage(where)
        study = optuna.create_study(
            storage=_storage(where),
            study_name=name,
            direction="maximize",
            pruner=PRUNERS[asked.pruner](),
            load_if_exists=True,
        )
    except UserError:
        raise
    except Exception as error:  # of whichever database
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--storage {where}: {reason}") from None
    # Gone on with, it is not to draw again what it drew before; nor what other machines draw.
    drawn = [asked.seed, len(study.get_trials(deepcopy=False))]
    drawn += [crc32(socket.gethostname().encode())] if asked.storage else []
    study.sampler = SAMPLERS[asked.sampler](int(SeedSequence(drawn).generate_state(1)[0]))
    made_with = study.user_attrs.get("made_with")
    if made_with is None:
        study.set_user_attr("made_with", digest)
    elif made_with != digest:
        raise UserError(
            f"the sweep {name} was begun with another space or other options; give this one "
            "another --name, or the same again",
            status=2,
        )
    return study


def _refuse_links(root: Path, folder: Path) -> None:
    for path in (folder.parent, folder):
        if path.is_symlink():
            raise UserError(f"{path} is a link out of {root}; remove it")
    refuse_links(folder, ("",))


@contextmanager
def _damage_reported(where: str) -> Iterator[None]:
    """Report a value that no sweep stores as damage of its database.

    Raises:
        UserError: there is one.
    """
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:LONGEST]
        raise UserError(f"{where} is not the database of a sweep, or damaged: {reason}") from error


def _storage(where: str) -> BaseStorage:
    if "://" in where:
        patient = {"connect_args": {"timeout": 60}} if where.startswith("sqlite") else {}
        return RDBStorage(where, engine_kwargs=patient)
    if not where.endswith(".journal"):
        raise ValueError("a URL such as sqlite:///study.db, or a file whose name ends in .journal")
    # Of a relative path the link that is its lock would lead nowhere.
    return JournalStorage(JournalFileBackend(str(Path(where).absolute())))


def _digest(found: search_space.Space, options: list[str]) -> str:
    """What makes two sweeps the same: the space, the options, and the files that they name."""
    files = read_files(options, lambda path, section: read_yaml(path))
    content = [json.dumps(found.ranges), json.dumps(options), *files]
    return hashlib.sha256("\0".join(content).encode()).hexdigest()[:16]


def _search(study: optuna.Study, plan: Plan, count: int, workers: int, console: Console) -> int:
    """Work until there are `count` trials; return 0, or the status of who was told to end.

    Raises:
        UserError: the study cannot be written, or trial after trial fails alike.
    """
    stop = Event()
    desk = Desk(study, count, plan.folder)
    worker = Worker(study, plan, stop)

    def work() -> None:
        while not stop.is_set() and (trial := desk.next()) is not None:
            try:
                trial.set_user_attr("sweep", study.study_name)
                worker.work_on(trial)
            except Exception:
                stop.set()
                raise
            finally:
                desk.give_back(trial)
            _refuse_to_fail_on(study, plan, stop)
            ended = study.trials[trial.number]
            if ended.state.is_finished() and not console.is_terminal:
                show.line(console, results.line(ended))

    try:
        with (
            _told_to_end(stop) as told,
            ThreadPoolExecutor(workers) as pool,
            Live(console=console, auto_refresh=False, transient=True) as live,
        ):
            working = [pool.submit(work) for _ in range(workers)]
            while not all(each.done() for each in working):
                if console.is_terminal:
                    live.update(results.table(study, count), refresh=True)
                wait(working, REFRESH_SECONDS)
            for each in working:
                each.result()
    except StorageInternalError as error:
        reason = " ".join(str(error).split())[:LONGEST]
        raise UserError(f"the study cannot be kept: {reason}; the same command goes on") from None
    return told[0] if told else 130 * stop.is_set()


@contextmanager
def _told_to_end(stop: Event) -> Iterator[list[int]]:
    """Set `stop` at Ctrl-C and SIGTERM; give the exit statuses that these stand for."""
    told: list[int] = []

    def end(number: int, _: object) -> None:
        told.append(128 + number)
        stop.set()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, end)
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _refuse_to_fail_on(study: optuna.Study, plan: Plan, stop: Event) -> None:
    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    reasons = [trial.user_attrs.get("error") for trial in ended[-ALIKE:]]
    if len(reasons) == ALIKE and reasons[0] is not None and len(set(reasons)) == 1:
        stop.set()
        raise UserError(
            f"{ALIKE} trials in a row failed alike: {reasons[0]}; see {plan.folder}/trial_*.log; "
            "once that is mended the same command goes on"
        )


def _close(study: optuna.Study, plan: Plan, trust: bool, console: Console, status: int) -> int:
    """Show what came out, and write it down."""
    if console.is_terminal:
        console.print(results.table(study, len(study.trials)))
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    counts = [
        f"{states.count(state)} {word}"
        for state, word in (
            (TrialState.COMPLETE, "finished"),
            (TrialState.PRUNED, "pruned"),
            (TrialState.FAIL, "failed"),
            (TrialState.RUNNING, "to be gone on with"),
        )
        if state in states
    ]
    show.line(console, f"{len(states)} trials: {', '.join(counts)}")
    if status:
        show.line(console, "interrupted; the same command goes on")
        return status
    best = results.best_of(study)
    folder = plan.folder
    if best is None:
        raise UserError(f"no trial came to its end; what they said is in {folder}/trial_*.log")
    show.line(console, f"best: {results.line(best)}")
    if not plan.space.contains(best.params):
        raise UserError(f"trial {best.number} has parameters outside the space")
    for path in results.write(study, best, _config_of(plan, best, trust), folder):
        show.line(console, f"  {path}")
    # With as many threads the run is the trial's to the last bit.
    again = f"{PROGRAM} fit --config {shlex.quote(str(folder / 'best.yaml'))}"
    show.following(console, [f"OMP_NUM_THREADS={plan.threads} {again}"])
    return 0


def _config_of(plan: Plan, trial: FrozenTrial, trust: bool) -> dict[str, Any]:
    """The complete configuration of a trial, with the test that a sweep leaves out."""
    _, options = take_option("--init_from", list(plan.options))
    _, options = take_switch("--trust", options)
    cli = DigitCLI("sweep", [*options, *search_space.as_options(trial.params)], trust=trust)
    cli.load_data()
    config = cli.complete_config()
    config["trainer"]["limit_test_batches"] = None
    return config
