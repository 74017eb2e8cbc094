"""A study: the trials of a sweep in Optuna's database, and the workers that run them."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import NamedTuple

import optuna
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial

from mnist_lightning.errors import UserError
from mnist_lightning.tuning.database_url import explain, hide_password, reason
from mnist_lightning.tuning.reconnecting_storage import ConnectionLostError
from mnist_lightning.tuning.samplers import SeededSampler
from mnist_lightning.tuning.storage import open_storage
from mnist_lightning.tuning.trial_queue import TrialQueue, is_discarded
from mnist_lightning.tuning.trial_runner import Plan, TrialRunner

PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "asha": lambda: SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    "median": lambda: MedianPruner(n_startup_trials=5, n_warmup_steps=0),
    "none": NopPruner,
}
REFRESH_SECONDS = 1.0
MAX_EQUAL_FAILURES = 3  # trials in a row with the same error end a sweep


class StudyOptions(NamedTuple):
    """How a study is stored and searched.

    Attributes:
        name: the name of the study.
        storage: the URL of a database or a `.journal` file; None for SQLite in the sweep's folder.
        sampler: a key of `SAMPLERS`.
        pruner: a key of `PRUNERS`.
        seed: the seed of the sampler.
    """

    name: str
    storage: str | None
    sampler: str
    pruner: str
    seed: int


def open_study(
    options: StudyOptions,
    folder: Path,
    digest: str,
    trust: bool,
    stop: Event,
    report: Callable[[str], None],
) -> optuna.Study:
    """Create a study, or open it if it exists.

    Args:
        options: its name, storage, sampler, pruner and seed.
        folder: the sweep's folder.
        digest: identifies the space and the options of `fit`; a study stores that of its start.
        trust: open a file that somebody else may have made; see `open_storage`.
        stop: set to end the sweep.
        report: called with a line if a database server is not reachable for some time.

    Raises:
        UserError: it cannot be opened, or was created with another space or other options.
    """
    url = options.storage or f"sqlite:///{folder / 'study.db'}"
    try:
        study = optuna.create_study(
            storage=open_storage(url, trust, stop, report),
            study_name=options.name,
            direction="maximize",
            load_if_exists=True,
        )
        study.get_trials(deepcopy=False)
    except UserError:
        raise
    except Exception as error:  # each database has its own classes of errors
        raise UserError(explain(url, error)) from None
    study.pruner = PRUNERS[options.pruner]()
    study.sampler = SeededSampler(options.sampler, options.seed)
    made_with = study.user_attrs.get("made_with")
    if made_with is None:
        study.set_user_attr("made_with", digest)
    elif made_with != digest:
        problem = f"The sweep {options.name} already exists with another space or other options"
        raise UserError(
            f"{problem}. Give another --name, or the options of the existing sweep.", status=2
        )
    return study


# What Optuna raises for invalid values in a database.
_DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError),
    *(TypeError, ValueError),
)


@contextmanager
def report_damage(storage: str) -> Iterator[None]:
    """Report errors from reading invalid values as damage of the database.

    Raises:
        UserError: there was such an error, or the database cannot be written.
    """
    try:
        yield
    except StorageInternalError as error:
        problem = f"The study cannot be saved: {reason(error)}"
        raise UserError(f"{problem}. Repeat the command to continue.") from None
    except _DAMAGE as error:
        problem = f"{hide_password(storage)} is damaged, or not the database of a sweep"
        raise UserError(f"{problem}: {type(error).__name__} {reason(error)}") from error


def search(
    study: optuna.Study,
    plan: Plan,
    stop: Event,
    on_end: Callable[[FrozenTrial], None],
    refresh: Callable[[], None],
) -> int:
    """Run trials until there are `plan.trials`; return 0, or the status of an interruption.

    Args:
        study: the study.
        plan: the settings of the sweep.
        stop: set to end the sweep.
        on_end: called in a worker thread with each trial that ended.
        refresh: called every `REFRESH_SECONDS`.

    Raises:
        UserError: successive trials fail with the same error, or the database is not reachable.
    """
    queue = TrialQueue(study, plan.trials, plan.folder, plan.space)
    runner = TrialRunner(study, plan, stop)

    def work() -> None:
        try:
            while not stop.is_set() and (trial := queue.next()) is not None:
                try:
                    trial.set_user_attr("sweep", study.study_name)
                    runner.run(trial)
                finally:
                    queue.release(trial)
                if plan.space.points is None:  # else the other points must be tried too
                    _stop_on_equal_failures(study, plan, stop)
                frozen = study.get_trials(deepcopy=False)[trial.number]
                if frozen.state.is_finished():
                    on_end(frozen)
        except Exception:
            stop.set()
            raise

    with _stop_signals(stop) as received, ThreadPoolExecutor(plan.workers) as pool:
        futures = [pool.submit(work) for _ in range(plan.workers)]
        try:
            while wait(futures, REFRESH_SECONDS).not_done:
                refresh()
            for future in futures:
                future.result()
        except ConnectionLostError as error:
            stop.set()
            raise UserError(str(error), 128 + received[0] if received else 1) from None
    return 128 + received[0] if received else 130 * stop.is_set()


@contextmanager
def _stop_signals(stop: Event) -> Iterator[list[int]]:
    """Set `stop` on SIGINT and SIGTERM; yield the list of those received."""
    received: list[int] = []

    def record(number: int, _: object) -> None:
        received.append(number)
        stop.set()

    handlers = {number: signal.signal(number, record) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _stop_on_equal_failures(study: optuna.Study, plan: Plan, stop: Event) -> None:
    trials = [trial for trial in study.get_trials(deepcopy=False) if not is_discarded(trial)]
    finished = [trial for trial in trials if trial.state.is_finished()]
    reasons = [trial.user_attrs.get("error") for trial in finished[-MAX_EQUAL_FAILURES:]]
    if len(reasons) == MAX_EQUAL_FAILURES and reasons[0] is not None and len(set(reasons)) == 1:
        stop.set()
        problem = f"{MAX_EQUAL_FAILURES} trials in a row failed with the same error: {reasons[0]}"
        fix = f"Fix the error (see {plan.folder}/trial_*.log), then repeat the command to continue."
        raise UserError(f"{problem}. {fix}")
