"""A run that was killed or interrupted, wherever, ends as if nothing had happened."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_lightning.cli.verify import first_difference_of_runs
from mnist_lightning.runs.recent_checkpoints import progress
from mnist_lightning.runs.run_directory import Run
from tests.cli.checks import assert_equal, load, logged
from tests.conftest import DIGITS
from tests.fuzzing import run_cases
from tests.processes import Place, ended, run, start
from tests.run_differences import differences

BATCHES = 13  # in an epoch of 1,300 digits
EPOCHS = 3
FIT = ["fit", *DIGITS, "--trainer.max_epochs", str(EPOCHS), "--trainer.log_every_n_steps", "2"]
CLASSIFIER, CHECKPOINTS = (
    "mnist_lightning.training.lightning_module",
    "mnist_lightning.training.callbacks.checkpointing",
)

OPTIONS = {
    "plain": [],
    "workers": ["--data.num_workers", "2"],
    "autosave": ["--autosave", "0"],
    "autosave and workers": ["--autosave", "0", "--data.num_workers", "2"],
    "accumulation, a schedule by step": [
        *("--autosave", "0", "--trainer.accumulate_grad_batches", "4"),
        *("--model.lr_scheduler", "OneCycle"),
    ],
    "validation within the epoch, a plateau": [
        *("--autosave", "0", "--trainer.val_check_interval", "4"),
        *("--model.lr_scheduler", "ReduceLROnPlateau", "--model.lr_scheduler.patience", "0"),
    ],
    "a moving mean of the weights": [
        *("--autosave", "0", "--model.network", "BatchNormCNN"),
        *("--trainer.callbacks", "ExponentialMovingAverage", "--trainer.callbacks.decay", "0.8"),
    ],
}
# Where the second epoch is hit.
PLACES = {
    "in a batch": Place(CLASSIFIER, "DigitClassifier.training_step", BATCHES + 6),
    "in the last batch": Place(CLASSIFIER, "DigitClassifier.training_step", 2 * BATCHES),
    "before validation": Place(
        CLASSIFIER, "DigitClassifier.on_train_batch_end", 2 * BATCHES, after=True
    ),
    "in validation": Place(CLASSIFIER, "DigitClassifier.validation_step", 2),
    "after validation": Place(CLASSIFIER, "DigitClassifier.on_validation_epoch_end", 2, after=True),
    "at the epoch's end": Place(CHECKPOINTS, "RunCheckpoints.on_epoch_completed", 2, after=True),
}


class Whole:
    """What an uninterrupted run ends with."""

    def __init__(self, folder: Path) -> None:
        self.run = Run(folder / "lightning_logs" / "version_0")
        self.last, self.best = load(self.run.recent()), load(self.run.best)
        self.logs = logged(self.run)
        self.predictions = self.run.predictions.read_bytes()

    def assert_same(self, folder: Path) -> None:
        """Compare every tensor and number of both checkpoints, and every figure in the logs."""
        other = Whole(folder)
        assert_equal(other.last, self.last)
        assert_equal(other.best, self.best)
        assert other.logs == self.logs
        assert other.predictions == self.predictions


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """The uninterrupted run of some options, made once."""
    made: dict[str, Whole] = {}

    def make(name: str) -> Whole:
        if name not in made:
            folder = tmp_path_factory.mktemp("whole")
            assert run([*FIT, *OPTIONS[name]], folder) == 0, (folder / "printed").read_text()
            made[name] = Whole(folder)
        return made[name]

    return make


@pytest.mark.parametrize(
    ("options", "how"),
    [("autosave", signal.SIGKILL), ("autosave and workers", signal.SIGINT)],
    ids=["killed", "interrupted, with workers"],
)
def test_a_run_hit_at_any_place_and_resumed_ends_with_the_same_bits(
    tmp_path: Path, uninterrupted: Callable[[str], Whole], options: str, how: signal.Signals
) -> None:
    whole = uninterrupted(options)
    folders = {place: tmp_path / place for place in PLACES}
    for folder in folders.values():
        folder.mkdir()
    command = [*FIT, *OPTIONS[options]]
    hit = {
        place: start(command, folder, PLACES[place]._replace(sends=how))
        for place, folder in folders.items()
    }
    assert {place: ended(process) for place, process in hit.items()} == dict.fromkeys(
        PLACES, 128 + how
    )
    resumed = {place: start(["resume"], folder) for place, folder in folders.items()}
    for place, folder in folders.items():
        assert ended(resumed[place]) == 0, (place, (folder / "printed").read_text())
        whole.assert_same(folder)
        assert not list(folder.rglob(".*.tmp"))


@pytest.mark.parametrize("options", [name for name in OPTIONS if name not in ("plain", "autosave")])
def test_an_interrupted_run_of_any_kind_goes_on_from_where_it_was(
    tmp_path: Path, uninterrupted: Callable[[str], Whole], options: str
) -> None:
    place = PLACES["in a batch"]._replace(sends=signal.SIGTERM)
    assert run([*FIT, *OPTIONS[options]], tmp_path, place) == 143
    printed = (tmp_path / "printed").read_text()
    assert "Interrupted. Saved through batch" in printed
    assert "python -m mnist_lightning resume 0" in printed
    saved = progress(load(Run(tmp_path / "lightning_logs/version_0").recent()))
    assert saved.epochs == 1
    assert 6 <= saved.batches <= 8  # the next one where nothing is half done
    assert run(["resume"], tmp_path) == 0
    assert f"resuming lightning_logs/version_0 after {saved}" in (tmp_path / "printed").read_text()
    uninterrupted(options).assert_same(tmp_path)


def test_three_kills_in_one_epoch_leave_no_trace(
    tmp_path: Path, uninterrupted: Callable[[str], Whole]
) -> None:
    command = [*FIT, *OPTIONS["autosave"]]
    for call in (BATCHES + 3, 4, 5):
        place = Place(CLASSIFIER, "DigitClassifier.training_step", call)
        assert run(command, tmp_path, place) == 128 + signal.SIGKILL
        command = ["resume"]
    assert run(command, tmp_path) == 0
    uninterrupted("autosave").assert_same(tmp_path)


def test_kills_at_random_moments_leave_no_trace(
    tmp_path: Path, uninterrupted: Callable[[str], Whole]
) -> None:
    moments = random.Random(0)
    command = [*FIT, *OPTIONS["autosave"]]
    checkpoints = Run(tmp_path / "lightning_logs/version_0").checkpoints
    for _ in range(6):
        process = start(command, tmp_path)
        while process.is_alive() and not any(checkpoints.glob("last*.ckpt")):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.6))
        process.kill()
        process.join()
        command = ["resume"]
    assert run(command, tmp_path) == 0, (tmp_path / "printed").read_text()
    uninterrupted("autosave").assert_same(tmp_path)


@pytest.mark.parametrize(("method", "after"), [("_rotate", True), ("_save_last", False)])
def test_a_kill_while_saving_costs_at_most_what_was_being_saved(
    tmp_path: Path, uninterrupted: Callable[[str], Whole], method: str, after: bool
) -> None:
    place = Place(CHECKPOINTS, f"RunCheckpoints.{method}", BATCHES + 4, after)
    assert run([*FIT, *OPTIONS["autosave"]], tmp_path, place) == 128 + signal.SIGKILL
    assert run(["resume"], tmp_path) == 0
    uninterrupted("autosave").assert_same(tmp_path)


@pytest.mark.parametrize(
    "place",
    [
        *(
            Place("mnist_lightning.runs.metrics_csv", "write_atomically", call, True)
            for call in (2, 4)
        ),
        Place("mnist_lightning.training.runner", "_show_hyperparameters", 1, after=True),
    ],
    ids=["as a column comes", "as the test's columns come", "after the test"],
)
def test_a_kill_between_two_files_loses_no_line_of_the_logs(
    tmp_path: Path, uninterrupted: Callable[[str], Whole], place: Place
) -> None:
    whole = uninterrupted("autosave")
    assert run([*FIT, *OPTIONS["autosave"]], tmp_path, place) == 128 + signal.SIGKILL
    assert run(["resume"], tmp_path) == 0
    whole.assert_same(tmp_path)
    resumed = Run(tmp_path / "lightning_logs" / "version_0")
    assert first_difference_of_runs(whole.run, resumed) is None  # the test's figures, too
    events = EventAccumulator(str(resumed.folder)).Reload()
    assert len(events.Scalars("final/val_accuracy")) == 1


def test_a_half_written_file_is_cleared_away(
    tmp_path: Path, uninterrupted: Callable[[str], Whole]
) -> None:
    # A file's bytes and its folder's are flushed in turn; at this one the file has no name yet.
    place = Place("os", "fsync", 21)
    assert run([*FIT, *OPTIONS["autosave"]], tmp_path, place) == 128 + signal.SIGKILL
    assert list(tmp_path.rglob(".*.tmp"))
    assert run(["resume"], tmp_path) == 0
    assert not list(tmp_path.rglob(".*.tmp"))
    uninterrupted("autosave").assert_same(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_do_not_die_of_a_signal_to_the_whole_group(
    tmp_path: Path, uninterrupted: Callable[[str], Whole], number: signal.Signals
) -> None:
    process = start([*FIT, *OPTIONS["autosave and workers"]], tmp_path)
    while process.is_alive() and not list(tmp_path.rglob("last-1.ckpt")):
        time.sleep(0.01)
    assert process.pid is not None
    os.killpg(process.pid, number)
    process.join(20)
    assert process.exitcode == 128 + number, (tmp_path / "printed").read_text()
    assert run(["resume"], tmp_path) == 0
    uninterrupted("autosave and workers").assert_same(tmp_path)


def test_early_stopping_keeps_its_patience_and_its_decision(tmp_path: Path) -> None:
    stopping = [
        *("--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"),
        *("--trainer.callbacks.patience", "1", "--model.optimizer.lr", "0.03"),
        *("--trainer.max_epochs", "30"),
    ]
    whole, cut, late = (tmp_path / name for name in ("whole", "cut", "late"))
    for folder in (whole, cut, late):
        folder.mkdir()
    assert run([*FIT, *stopping], whole) == 0
    ended = Run(whole / "lightning_logs/version_0").summary()["epochs"]
    assert 2 < ended < 30
    for folder, epoch in ((cut, ended - 1), (late, ended)):
        place = Place(CHECKPOINTS, "RunCheckpoints.on_epoch_completed", epoch, after=True)
        assert run([*FIT, *stopping], folder, place) == 128 + signal.SIGKILL
        assert run(["resume"], folder) == 0
        Whole(whole).assert_same(folder)
    assert run(["resume"], whole) == 0
    assert f"is finished: {ended} of 30 epochs" in (whole / "printed").read_text()


def test_a_run_that_a_limit_of_steps_ended_within_an_epoch_goes_on_exactly(
    tmp_path: Path, uninterrupted: Callable[[str], Whole]
) -> None:
    command = FIT[: FIT.index("--trainer.max_epochs")]
    assert run([*command, "--trainer.max_steps", "20"], tmp_path) == 0
    longer = ["--trainer.max_steps", "-1", "--trainer.max_epochs", str(EPOCHS)]
    assert run(["resume", *longer], tmp_path) == 0
    assert "after batch 7 of epoch 2" in (tmp_path / "printed").read_text()
    last = load(Run(tmp_path / "lightning_logs/version_0").recent())
    whole = uninterrupted("plain").last
    for part in ("state_dict", "optimizer_states", "loops"):
        assert_equal(last[part], whole[part])


STEPS = ["--trainer.max_steps", "20"]
BY_STEPS = [*FIT[: FIT.index("--trainer.max_epochs")], "--trainer.log_every_n_steps", "2"]
TRAINING = "mnist_lightning.training.runner"


@pytest.mark.parametrize(
    "places",
    [
        [Place(CLASSIFIER, "DigitClassifier.training_step", 17)],
        [Place(CLASSIFIER, "DigitClassifier.training_step", 20, after=True)],
        [Place(CLASSIFIER, "DigitClassifier.on_train_end", 1, sends=signal.SIGTERM)],
        [Place(CLASSIFIER, "DigitClassifier.on_train_end", 1, after=True)],
        [Place(CLASSIFIER, "DigitClassifier.test_step", 1)],
        [Place(TRAINING, "_fit_temperature", 1)],
        [
            Place(CLASSIFIER, "DigitClassifier.training_step", 15, sends=signal.SIGINT),
            Place(CLASSIFIER, "DigitClassifier.training_step", 2, sends=signal.SIGTERM),
            Place(CLASSIFIER, "DigitClassifier.test_step", 1),
            Place(TRAINING, "_show_hyperparameters", 1),
        ],
    ],
    ids=["in a step", "in the last step", "at the end", "saved", "testing", "calibrating", "often"],
)
def test_a_run_with_max_steps_is_resumed_and_extended_exactly(
    tmp_path: Path, places: list[Place]
) -> None:
    whole, longer, folder = (tmp_path / name for name in ("whole", "longer", "hit"))
    for each in (whole, longer, folder):
        each.mkdir()
    assert run([*BY_STEPS, *STEPS], whole) == 0
    assert run([*BY_STEPS, "--trainer.max_steps", "33"], longer) == 0
    command = [*BY_STEPS, *STEPS]
    for place in places:
        assert run(command, folder, place) == 128 + place.sends, (folder / "printed").read_text()
        command = ["resume"] if list(folder.rglob("last.ckpt")) else command
    assert run(command, folder) == 0, (folder / "printed").read_text()
    runs = [Run(each / "lightning_logs" / "version_0") for each in (whole, longer, folder)]
    assert list(differences(runs[0], runs[2], extended=False)) == []
    assert run(["resume", "--trainer.max_steps", "33"], folder) == 0
    assert list(differences(runs[1], runs[2], extended=True)) == []


PARTS = {
    "64-true": ["--trainer.precision", "64-true"],
    "16-true": ["--trainer.precision", "16-true", "--model.optimizer", "SGD"],
    "bf16-true": ["--trainer.precision", "bf16-true", "--model.optimizer", "NAdam"],
    "16-true, ASGD": ["--trainer.precision", "16-true", "--model.optimizer", "ASGD"],
    "bf16-mixed": ["--trainer.precision", "bf16-mixed"],
    "64-true, a moving mean": [
        *("--trainer.precision", "64-true"),
        *("--trainer.callbacks", "ExponentialMovingAverage", "--trainer.callbacks.decay", "0.8"),
    ],
    "accumulation by epoch": [
        *("--trainer.callbacks", "GradientAccumulationScheduler"),
        *("--trainer.callbacks.scheduling", "{0: 2, 1: 3}"),
    ],
    "checkpoints by step, accumulation": [
        *("--trainer.callbacks", "ModelCheckpoint", "--trainer.callbacks.save_top_k", "-1"),
        *("--trainer.callbacks.every_n_train_steps", "3"),
        *("--trainer.accumulate_grad_batches", "2"),
    ],
    "checkpoints by a metric": [
        *("--trainer.callbacks", "ModelCheckpoint", "--trainer.callbacks.monitor", "val/loss"),
        *("--trainer.check_val_every_n_epoch", "2", "--dashboards", "none"),
    ],
    "a metric of an earlier epoch": [
        *("--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"),
        *("--trainer.check_val_every_n_epoch", "2"),
    ],
    "a plateau, epochs without a validation": [
        *("--model.lr_scheduler", "ReduceLROnPlateau", "--model.lr_scheduler.patience", "0"),
        *("--trainer.check_val_every_n_epoch", "4", "--model.optimizer.lr", "0.05"),
    ],
    "statistics of the device": ["--trainer.callbacks", "DeviceStatsMonitor"],
    "pictures, accumulation": [
        *("--trainer.accumulate_grad_batches", "4", "--trainer.val_check_interval", "2"),
        *("--dashboards", "full"),
    ],
}


@pytest.mark.parametrize("options", PARTS.values(), ids=PARTS)
def test_a_run_of_any_parts_is_resumed_exactly(tmp_path: Path, options: list[str]) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "hit"
    for each in (whole, folder):
        each.mkdir()
    assert run([*FIT, *options], whole) == 0, (whole / "printed").read_text()
    command = [*FIT, *options]
    for call, sent in ((BATCHES + 6, signal.SIGTERM), (3, signal.SIGINT)):
        place = Place(CLASSIFIER, "DigitClassifier.training_step", call, sends=sent)
        assert run(command, folder, place) == 128 + sent, (folder / "printed").read_text()
        command = ["resume"]
    place = Place(TRAINING, "_show_hyperparameters", 1, after=True)
    assert run(command, folder, place) == 128 + signal.SIGKILL
    assert run(command, folder) == 0, (folder / "printed").read_text()
    left, right = (Run(each / "lightning_logs" / "version_0") for each in (whole, folder))
    assert list(differences(left, right, extended=False)) == []


def test_a_termination_during_the_test_is_one(tmp_path: Path) -> None:
    place = Place(CLASSIFIER, "DigitClassifier.test_step", 1, sends=signal.SIGTERM)
    assert run([*FIT, "--data.eval_batch_size", "50"], tmp_path, place) == 143
    assert Run(tmp_path / "lightning_logs" / "version_0").summary()["state"] == "interrupted"
    assert run(["resume"], tmp_path) == 0


def test_interrupts_do_not_change_which_checkpoints_are_kept(tmp_path: Path) -> None:
    place = Place(
        CLASSIFIER, "DigitClassifier.training_step", 2 * BATCHES + 4, sends=signal.SIGTERM
    )
    assert run([*FIT, "--autosave", "0"], tmp_path, place) == 143
    there = Run(tmp_path / "lightning_logs" / "version_0")
    kept = [progress(load(there.recent(index))) for index in range(3)]
    assert kept[0].epochs == 2 and kept[0].batches >= 4
    assert kept[1:] == [(2, 0), (1, 0)]


def test_a_damaged_checkpoint_takes_no_intact_one_s_place(tmp_path: Path) -> None:
    assert run([*FIT, "--trainer.max_epochs", "2"], tmp_path) == 0
    there = Run(tmp_path / "lightning_logs" / "version_0")
    older = there.recent(1).read_bytes()
    there.recent().write_bytes(there.recent().read_bytes()[:-1000])
    assert run(["resume", str(there.recent(1)), "--trainer.max_epochs", "3"], tmp_path) == 0
    assert (there.checkpoints / "last.ckpt.damaged-1").exists()
    assert older in (there.recent(1).read_bytes(), there.recent(2).read_bytes())
    assert [progress(load(there.recent(index))).epochs for index in range(3)] == [3, 2, 1]


def test_a_limit_of_time_loses_nothing(tmp_path: Path) -> None:
    limit = ["--trainer.max_time", "00:00:00:01", "--trainer.accumulate_grad_batches", "4"]
    command = [*FIT[: FIT.index("--trainer.max_epochs")], *limit]
    assert run([*command, "--trainer.max_epochs", "1000"], tmp_path) == 0
    there = Run(tmp_path / "lightning_logs" / "version_0")
    first = load(there.recent())["global_step"]
    assert there.summary()["resume"] == "unverified"
    assert run(["resume", "--trainer.max_time", "00:00:00:02"], tmp_path) == 0
    last = load(there.recent())["global_step"]
    assert isinstance(first, int) and isinstance(last, int) and 0 < first < last
    assert there.summary()["state"] == "finished"


@pytest.mark.parametrize("number", range(6))
def test_a_random_run_interrupted_at_random_is_resumed_exactly(number: int) -> None:
    ((_, case, verdict),) = run_cases(seed=23, first=number, count=1)
    assert verdict.kind in ("equal", "refused"), (verdict, case)


def test_validating_more_often_changes_no_training_bit(tmp_path: Path) -> None:
    states = []
    for number, every in enumerate(("1.0", "3")):
        assert run([*FIT, "--trainer.val_check_interval", every], tmp_path) == 0
        states.append(load(Run(tmp_path / f"lightning_logs/version_{number}").recent()))
    for part in ("state_dict", "optimizer_states", "RandomState"):
        left, right = (
            {**state, "RandomState": state["callbacks"]["RandomState"]}[part]  # type: ignore[index] # one of these
            for state in states
        )
        assert_equal(left, right)


def test_a_copy_of_the_run_s_folder_goes_on_as_well(
    tmp_path: Path, uninterrupted: Callable[[str], Whole]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    run([*FIT, *OPTIONS["autosave"]], first, PLACES["in a batch"])
    shutil.copytree(first, second)
    assert run(["resume"], second) == 0
    uninterrupted("autosave").assert_same(second)
