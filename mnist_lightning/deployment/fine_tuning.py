"""Fine-tune a served network on corrected digits: one training at a time, in a child process."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, TextIO

import torch

from mnist_lightning.deployment.child_process import CancelledError, ChildFailedError, run_child
from mnist_lightning.deployment.corrections import LABELS, count_corrections
from mnist_lightning.deployment.fine_tuning_options import (
    choose_rehearsal,
    fit_options,
    network_options,
    plan_training,
)
from mnist_lightning.deployment.fine_tuning_state import Comparison, FineTuningState
from mnist_lightning.deployment.problems import ProblemError
from mnist_lightning.deployment.responses import ModelRegistry
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.inference import Recognizer
from mnist_lightning.networks.calibration import Calibration
from mnist_lightning.runs import lookup
from mnist_lightning.runs.metrics_csv import METRICS_FILE
from mnist_lightning.runs.metrics_follower import MetricsFollower
from mnist_lightning.runs.run_directory import Run, create_next
from mnist_lightning.text import plural, say, shorten

FIT = "from mnist_lightning.cli.main import run; run()"
COMPARE = "from mnist_lightning.evaluation.forgetting import main; main()"
STOP_SECONDS = 15.0  # a training that is stopped saves its state first


@dataclass(frozen=True)
class Settings:
    """The settings of a server that fine-tunes.

    Attributes:
        folder: the corrected digits.
        root: the directory of the runs.
        data_dir: the directory of the data sets; None: that of the run.
        network: the class of the user's own network.
    """

    folder: Path
    root: Path
    data_dir: Path | None = None
    network: str | None = None


@dataclass(frozen=True)
class Job:
    """A fine-tuning.

    Attributes:
        run: the run that it makes.
        fit: the arguments of the process that trains.
        compare: the argument of the process that compares.
        calibration: the calibration of the run; None: that of the training.
        state: the state at its start.
    """

    run: Run
    fit: list[str]
    compare: str
    calibration: Calibration | None
    state: FineTuningState


class FineTuner:
    """Fine-tunes a copy of a network; another thread starts and watches the child processes.

    Args:
        models: the networks of the server.
        settings: where to read and write.
    """

    def __init__(self, models: ModelRegistry, settings: Settings) -> None:
        self._models = models
        self.settings = settings
        self._state = FineTuningState()
        # Of each run that this server has made: its base, and when it was started.
        self._bases: dict[str, tuple[str, Any]] = {}
        self._starting = Lock()
        self._cancelled = Event()
        self._thread: Thread | None = None

    @property
    def state(self) -> FineTuningState:
        """The current state."""
        return self._state

    def note_on_data(self) -> str | None:
        """Return why the digits on which the default network was trained cannot be mixed in."""
        try:
            return choose_rehearsal(self._models.run, self.settings.data_dir).note
        except UserError as error:
            return str(error)

    def start(self, name: str | None) -> FineTuningState:
        """Fine-tune a copy of the network of a run; None: the default run.

        A run that was made here is replaced by its base: fine-tuning always starts from a network
        that was trained on its whole data set, so that forgetting does not add up.

        Raises:
            ProblemError: another fine-tuning is running, or this one cannot start.
        """
        name = name or self._models.run.folder.name
        with self._only_one():
            count = count_corrections(self.settings.folder)
            if count == 0:
                problem = "no corrected digits yet: draw a digit, then press its correct label"
                raise ProblemError(409, "no_corrections", problem)
            try:
                job = self._prepare(self._base_of(name), count)
            except UserError as error:
                raise ProblemError(409, "not_started", str(error)) from None
            self._cancelled.clear()
            self._state = job.state
            self._thread = Thread(target=self._work, args=(job,), daemon=True)
            self._thread.start()
        folder = job.run.folder
        _report(f"learning {plural(count, 'digit')}: {job.state.base} is fine-tuned as {folder}")
        return self._state

    def _base_of(self, name: str) -> str:
        """Return the base of a run that was made here, or the run itself."""
        base, started = self._bases.get(name, (name, None))
        run = self._models.known().get(name)
        is_the_same = run is not None and run.summary("started").get("started") == started
        return base if is_the_same else name

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        free = self._starting.acquire(blocking=False)
        try:
            if not free or self._state.state == "running":
                problem = "the network is learning already; wait, or cancel it"
                raise ProblemError(409, "already_learning", problem)
            yield
        finally:
            if free:
                self._starting.release()

    def _prepare(self, base: str, count: int) -> Job:
        """Choose the options, and create the directory of the run.

        Raises:
            ProblemError: the base does not exist, or cannot be loaded.
            UserError: it cannot be fine-tuned, or the directory cannot be created.
        """
        models, settings = self._models, self.settings
        recognizer = models.recognizer(base)
        _check_classes(recognizer, base)
        before = models.known()[base]
        source = lookup.PRETRAINED if before.is_pretrained else recognizer.source
        rehearsal = choose_rehearsal(before, settings.data_dir)
        network = network_options(recognizer.network, settings.network)
        plan = plan_training(rehearsal.extra, count)
        run = self._create_run()
        fit = fit_options(source, settings.folder, run, settings.root, rehearsal, plan)
        compare = {
            "before": source,
            "after": str(run.folder),
            "root": str(settings.root),
            "folder": str(settings.folder),
            "dataset": rehearsal.held_out,
            "is_mixed_in": rehearsal.held_out in rehearsal.extra,
            "data_dir": str(rehearsal.data_dir),
            "split_seed": rehearsal.split_seed,
            "network": settings.network,
        }
        state = FineTuningState(
            state="running",
            epochs=plan.epochs,
            base=base,
            run=run.folder.name,
            notes=[] if rehearsal.note is None else [rehearsal.note],
        )
        # The synthetic digits are too easy: on them, the network is never unsure.
        calibration = None if rehearsal.note is None else recognizer.calibration
        return Job(run, [*fit, *network], json.dumps(compare), calibration, state)

    def _create_run(self) -> Run:
        """Create the directory of a run; its name must not be that of the default run."""
        run = create_next(self.settings.root)
        if run.folder.name != self._models.run.folder.name:
            return run
        other = create_next(self.settings.root)
        _remove_if_empty(run)
        return other

    def _work(self, job: Job) -> None:
        """Train and compare in child processes, and report the state."""
        metrics = MetricsFollower(job.run.folder / METRICS_FILE)

        def report() -> None:
            with suppress(UserError):  # the progress is not worth a failure
                metrics.update()
            epoch = metrics.epochs[-1].epoch if metrics.epochs else 0
            if self._state.stage != "training" and job.run.config.exists():
                self._update(stage="training")
            if epoch != self._state.epoch:
                self._update(epoch=epoch)

        try:
            run_child(FIT, job.fit, self._cancelled, report)
            if job.calibration is not None:
                job.run.write_summary(job.run.summary() | job.calibration._asdict())
            self._update(stage="comparing")
            output = run_child(COMPARE, [job.compare], self._cancelled, lambda: None)
            comparison = Comparison.model_validate_json(output)
            notes = [*self._state.notes, *comparison.notes]
            self._update(state="finished", comparison=comparison, notes=notes)
            _report(f"learned: {job.run.folder}. {comparison.summary}")
        except CancelledError:
            self._update(state="cancelled", message=_kept(job.run))
        except ChildFailedError as error:
            self._fail(str(error), job.run)
        except Exception as error:  # nobody else would report it
            self._fail(" ".join(f"{type(error).__name__}: {error}".split()), job.run)
        finally:
            _remove_if_empty(job.run)
            started = job.run.summary("started").get("started")
            if started is not None and job.state.base is not None:
                self._bases[job.run.folder.name] = job.state.base, started

    def _fail(self, reason: str, run: Run) -> None:
        reason = shorten(reason)
        _report(f"learning failed: {reason}", file=sys.stderr)
        self._update(state="failed", message=f"{reason.rstrip('.')}. {_kept(run)}".strip())

    def _update(self, **changes: object) -> None:
        self._state = self._state.model_copy(update=changes)

    def cancel(self) -> FineTuningState:
        """Stop the fine-tuning that is running, and wait for its end.

        Raises:
            ProblemError: none is running.
        """
        if self._thread is None or self._state.state != "running":
            raise ProblemError(409, "not_learning", "nothing to cancel: no network is learning")
        self.stop()
        return self._state

    def stop(self) -> None:
        """Stop the child process, if there is one."""
        self._cancelled.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)


def _report(text: str, file: TextIO | None = None) -> None:
    """Print a line, unless nobody can read it any more."""
    with suppress(OSError):
        say(text, file=file, flush=True)


def _check_classes(recognizer: Recognizer, name: str) -> None:
    """Check that a network reads ten labels.

    Raises:
        UserError: it does not.
    """
    classes = recognizer.probabilities(torch.zeros(1, 1, 28, 28)).shape[1]
    if classes != len(LABELS):
        problem = f"the network of {name} has {classes} outputs, but there are {len(LABELS)} digits"
        raise UserError(f"{problem}; select another run")


def _kept(run: Run) -> str:
    """Say what is left of a run that was not compared."""
    if not run.recent().is_file():
        return ""
    if run.summary("state").get("state") == "finished":
        return f"The new network is in {run.folder}, but it was not compared with the earlier one."
    resume = f"{PROGRAM} resume {run.reference}"
    return f"The unfinished run {run.folder} is kept; to continue it: {resume}"


def _remove_if_empty(run: Run) -> None:
    with suppress(OSError):  # it is not empty
        run.checkpoints.rmdir()
        run.folder.rmdir()
