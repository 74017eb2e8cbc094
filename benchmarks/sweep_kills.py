"""Kill the parts of a sweep many times, and check that no trial is lost or recorded twice.

    python benchmarks/sweep_kills.py [--storage postgresql|sqlite] [--trials 200] [--kills 20]

Each kill is one of these, in a random order:

- trial: one process of a trial (kill -9). The sweep records the trial as failed.
- sweep: the process of the sweep (kill -9), while its trials continue. The sweep starts again.
- group: the sweep and all its trials (kill -9). The sweep starts again.
- database: the server is stopped until a sweep reports it, and started again. This is every tenth
  kill, only with PostgreSQL. In turn, the server ends its connections, and stops as in a crash.

A kill happens after a certain number of trials has started, and a random delay.
"""

import argparse
import itertools
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import optuna
import psutil
import yaml
from optuna.trial import FrozenTrial, TrialState

from mnist_lightning.runs.run_directory import LOGS_FOLDER, Run, list_runs
from mnist_lightning.tuning.samplers import SeededSampler
from mnist_lightning.tuning.search_space import SearchSpace, read
from mnist_lightning.tuning.trial_runner import MARK_FILE

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.postgresql_server import PostgresqlServer, start_postgresql

RATE, SIZE = "model.optimizer.init_args.lr", "data.batch_size"
SPACE = {RATE: {"log_uniform": [1e-3, 1.0]}, SIZE: {"int": [8, 64]}}
FIT = ["--data.dataset", "digits", "--trainer.max_epochs", "2", "--trainer.limit_train_batches"]
FIT += ["3", "--trainer.limit_val_batches", "1", "--trainer.accelerator", "cpu"]
FIT += ["--dashboards", "none", "--model.network", "MultilayerPerceptron"]
NAME, SEED = "space", 1
KINDS = ("trial", "sweep", "group")
MAX_DELAY_SECONDS = 6.0  # a trial takes about as long
WAIT_SECONDS = 600.0


class Counts(NamedTuple):
    """What a study has recorded, and what its folders contain.

    Attributes:
        recorded: the number of trials.
        states: their number by state.
        lost: trials that have not ended, that have no run, or that failed without a kill.
        duplicates: trials with the values or the run of another one, and runs beyond the first
            one of each trial.
        wrong: trials whose values or result differ from those of their run, or whose values are
            not those of a search without kills.
    """

    recorded: int
    states: dict[str, int]
    lost: int
    duplicates: int
    wrong: int


class KilledSweep:
    """A sweep in one or several folders, as on several machines; it starts again when killed.

    Args:
        folders: the working directories, one for each machine.
        storage: the URL of the database; None for SQLite in the sweep's folder.
        trials: the number of trials.
        workers: the number of trials in parallel, in each folder.
    """

    def __init__(self, folders: list[Path], storage: str | None, trials: int, workers: int) -> None:
        self.folders = folders
        self.storage = storage
        counts = ["--trials", str(trials), "--workers", str(workers), "--sampler", "random"]
        counts += ["--pruner", "none", "--seed", str(SEED)]
        self.arguments = ["sweep", "--space", "space.yaml", *FIT, *counts]
        self.arguments += ["--storage", storage] if storage else []
        self.starts = 0
        self.earlier: dict[Path, int] = {}  # how often each sweep has opened the database before
        for folder in folders:
            folder.mkdir()
            (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
        self.processes = [self._start(folder) for folder in folders]

    def _start(self, folder: Path) -> subprocess.Popen[bytes]:
        self.starts += 1
        self.earlier[folder] = self.times_opened(folder)
        with (folder / "output").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "mnist_lightning", *self.arguments],
                cwd=folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def times_opened(self, folder: Path) -> int:
        """Return how often the sweep in a folder has opened the database."""
        output = folder / "output"
        return output.read_text().count(f"sweep {NAME}: ") if output.exists() else 0

    def have_opened(self) -> bool:
        """Return whether all sweeps have opened the database, or ended."""
        return all(
            self.times_opened(folder) > self.earlier[folder] or self.has_ended(place)
            for place, folder in enumerate(self.folders)
        )

    def output(self) -> str:
        """Return what the sweeps have printed."""
        return "\n".join((folder / "output").read_text() for folder in self.folders)

    def num_runs(self) -> int:
        """Return the number of runs that have started."""
        return sum(1 for folder in self.folders for _ in list_runs(folder / LOGS_FOLDER))

    def trial_processes(self, place: int) -> list[psutil.Process]:
        """Return the processes of the trials in a folder, also of a killed sweep."""
        root = str(self.folders[place].resolve() / LOGS_FOLDER)
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(word.startswith(root) for word in process.info["cmdline"] or ())
        ]

    def kill(self, kind: str, place: int) -> None:
        """Kill a part of the sweep in a folder; start the sweep again if it was killed."""
        if kind == "trial":
            wait_until(lambda: bool(self.trial_processes(place)) or self.has_ended(place))
            for process in self.trial_processes(place)[:1]:
                process.kill()
            return
        sweep = self.processes[place]
        sweep.kill()
        sweep.wait()
        for process in self.trial_processes(place) if kind == "group" else ():
            process.kill()
        self.processes[place] = self._start(self.folders[place])

    def has_ended(self, place: int) -> bool:
        """Return whether the sweep in a folder has ended."""
        return self.processes[place].poll() is not None

    def stop_server(self, server: PostgresqlServer, mode: str) -> None:
        """Stop the server until a sweep has reported it, and start it again."""
        wait_until(self.have_opened)  # a sweep that starts does not wait for the server
        lost, back = "is not reachable", "is reachable again"
        times_lost, times_back = self.count(lost), self.count(back)
        server.stop(mode)
        wait_until(lambda: self.count(lost) > times_lost or self.have_ended())
        server.start()
        wait_until(lambda: self.count(back) > times_back or self.have_ended())

    def count(self, text: str) -> int:
        """Return how often the sweeps have printed a text."""
        return self.output().count(text)

    def have_ended(self) -> bool:
        """Return whether all sweeps have ended."""
        return all(self.has_ended(place) for place in range(len(self.folders)))

    def finish(self) -> list[int]:
        """Wait until the sweeps have ended; return their statuses."""
        return [process.wait() for process in self.processes]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true.

    Raises:
        TimeoutError: it is false for `WAIT_SECONDS`.
    """
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.1)


def run_and_kill(
    sweep: KilledSweep,
    trials: int,
    kinds: list[str],
    server: PostgresqlServer | None,
    generator: random.Random,
) -> Counter[str]:
    """Kill parts of a sweep, spread over its trials; return how many of each kind were killed."""
    done: Counter[str] = Counter()
    modes = itertools.cycle(("fast", "immediate"))
    for number, kind in enumerate(kinds):
        # The last trials are left to the end, so that each sweep is still running.
        threshold = 1 + (trials - 4) * number // len(kinds)
        wait_until(lambda least=threshold: sweep.num_runs() >= least)  # type: ignore[misc]
        time.sleep(generator.uniform(0, MAX_DELAY_SECONDS))
        place = generator.randrange(len(sweep.folders))
        if kind == "database":
            assert server is not None
            sweep.stop_server(server, next(modes))
        else:
            sweep.kill(kind, place)
        done[kind] += 1
    return done


def check(trials: list[FrozenTrial], folders: list[Path], space: SearchSpace) -> Counts:
    """Compare the recorded trials with their runs."""
    lost = wrong = 0
    marks = [file.read_text() for each in folders for file in each.glob(f"*/*/{MARK_FILE}")]
    duplicates = len(marks) - len(set(marks))
    runs = [str(trial.user_attrs.get("run")) for trial in trials]
    values = [repr(sorted(trial.params.items())) for trial in trials]
    duplicates += len(runs) - len(set(runs)) + len(values) - len(set(values))
    for trial in trials:
        error = str(trial.user_attrs.get("error", ""))
        failed = trial.state == TrialState.FAIL and "killed, SIGKILL" not in error
        lost += failed or not trial.state.is_finished() or "run" not in trial.user_attrs
        run = Run(Path(str(trial.user_attrs.get("run"))))
        if run.config.exists():  # a trial may be killed before it writes its configuration
            config = run.read_config()
            used = {RATE: config["model"]["optimizer"]["init_args"]["lr"]}
            used[SIZE] = config["data"]["batch_size"]
            wrong += used != trial.params
        if trial.state == TrialState.COMPLETE:
            wrong += run.summary().get("val/accuracy") != trial.value
    pairs = zip(trials, expected_values(space), strict=False)
    wrong += sum(trial.params != expected for trial, expected in pairs)
    wrong += [trial.number for trial in trials] != list(range(len(trials)))
    states = Counter(trial.state.name.lower() for trial in trials)
    return Counts(len(trials), dict(states), lost, duplicates, wrong)


def expected_values(space: SearchSpace) -> "itertools.chain[dict[str, object]]":
    """Return the values of a random search without kills, one trial after another."""
    study = optuna.create_study(sampler=SeededSampler("random", SEED))
    return itertools.chain(space.suggest(study.ask()) for _ in itertools.count())


def choose_kinds(kills: int, has_server: bool, generator: random.Random) -> list[str]:
    """Return the kinds of the kills, in a random order."""
    kinds = ["database"] * max(1, kills // 10) * has_server
    kinds += itertools.islice(itertools.cycle(KINDS), kills - len(kinds))
    generator.shuffle(kinds)
    return kinds


def main() -> None:
    """Print what was killed, and what is recorded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folders", type=int, default=1, help="sweeps that share the database")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    generator = random.Random(options.seed)
    has_server = options.storage == "postgresql"
    context = start_postgresql() if has_server else nullcontext()
    with tempfile.TemporaryDirectory() as workspace, context as server:
        assert server or options.storage == "sqlite", "PostgreSQL cannot run on this machine"
        folders = [Path(workspace) / f"machine_{place}" for place in range(options.folders)]
        start = time.perf_counter()
        storage = server.url() if server else None
        sweep = KilledSweep(folders, storage, options.trials, options.workers)
        kinds = choose_kinds(options.kills, has_server, generator)
        done = run_and_kill(sweep, options.trials, kinds, server, generator)
        statuses = sweep.finish()
        seconds = time.perf_counter() - start
        url = storage or f"sqlite:///{folders[0] / LOGS_FOLDER / 'sweeps' / NAME / 'study.db'}"
        url = (
            url.replace("postgresql:", "postgresql+psycopg:").replace("{", "{{").replace("}", "}}")
        )
        trials = optuna.load_study(study_name=NAME, storage=url).trials
        counts = check(trials, folders, read(folders[0] / "space.yaml"))
        print(f"{options.storage}, {options.folders} x {options.workers} workers: {seconds:.0f} s")
        print(f"kills: {sum(done.values())} {dict(done)}; starts of the sweep: {sweep.starts}")
        print(f"statuses {statuses}; trials recorded: {counts.recorded} {counts.states}")
        print(f"lost: {counts.lost}; duplicates: {counts.duplicates}; wrong: {counts.wrong}")
        print(f"unused run folders: {sweep.num_runs() - counts.recorded}")
        if any(statuses):
            print(sweep.output()[-2000:])


if __name__ == "__main__":
    main()
