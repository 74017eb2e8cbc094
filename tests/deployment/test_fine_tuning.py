"""The states of a fine-tuning, with child processes that do almost nothing."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from mnist_lightning.deployment import fine_tuning
from mnist_lightning.deployment.child_process import CancelledError, ChildFailedError
from mnist_lightning.deployment.corrections import save_correction
from mnist_lightning.deployment.fine_tuning import COMPARE, FIT, FineTuner, Settings
from mnist_lightning.deployment.problems import ProblemError
from mnist_lightning.deployment.responses import ModelRegistry
from mnist_lightning.inference import Recognizer
from mnist_lightning.preprocessing.mnist_format import find_digits
from mnist_lightning.runs.run_directory import PRETRAINED_FOLDER, Run
from tests.images import draw_seven

COMPARISON = {
    "own": {"total": 1, "before": 0, "after": 1, "forgotten": 0, "learned": 1, "shown": []},
    "held_out": {
        **{"total": 200, "before": 198, "after": 197, "forgotten": 2, "learned": 1},
        **{"dataset": "digits", "are_new": True, "rejected_before": 1, "rejected_after": 3},
    },
    "summary": "Your digits: 0 of 1 correct before, 1 after.",
    "notes": ["a note"],
}


class Children:
    """Replaces the child processes: each waits until the test lets it end."""

    def __init__(self) -> None:
        self.started: list[tuple[str, list[str]]] = []
        self.released = {FIT: Event(), COMPARE: Event()}
        self.actions: dict[str, Callable[[Sequence[str]], bytes]] = {
            FIT: lambda _: b"",
            COMPARE: lambda _: json.dumps(COMPARISON).encode(),
        }
        self.reports: dict[str, Callable[[], Any]] = {}

    def run(
        self, statement: str, arguments: Sequence[str], cancelled: Event, report: Callable[[], Any]
    ) -> bytes:
        """Wait until the test releases a child, then act as it does."""
        self.started.append((statement, list(arguments)))
        self.reports[statement] = report
        while not self.released[statement].wait(0.01):
            if cancelled.is_set():
                raise CancelledError
        return self.actions[statement](arguments)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Children:
    """Replace the child processes."""
    replacement = Children()
    monkeypatch.setattr(fine_tuning, "run_child", replacement.run)
    return replacement


@pytest.fixture
def tuner(tmp_path: Path, children: Children) -> FineTuner:
    """A tuner of the pretrained network, with one corrected digit and without MNIST."""
    root = tmp_path / "lightning_logs"
    pretrained = Run(PRETRAINED_FOLDER)
    models = ModelRegistry(pretrained, pretrained.best, root)
    save_correction(tmp_path / "mine", 1, find_digits(draw_seven(), False)[0])
    return FineTuner(models, Settings(tmp_path / "mine", root, tmp_path / "data"))


def finish(tuner: FineTuner) -> None:
    assert tuner._thread is not None
    tuner._thread.join(20)


def run_of(tuner: FineTuner) -> Run:
    assert tuner.state.run is not None
    return Run(tuner.settings.root / tuner.state.run)


def test_a_fine_tuning_trains_then_compares(tuner: FineTuner, children: Children) -> None:
    assert tuner.state.run is None
    state = tuner.start(None)
    assert (state.state, state.stage, state.base, state.run) == (
        *("running", "starting", "pretrained", "version_0"),
    )
    run = run_of(tuner)
    run.config.write_text("")
    children.reports[FIT]()
    assert (tuner.state.stage, tuner.state.epoch) == ("training", 0)
    # The column of the epoch follows when the first epoch is complete.
    (run.folder / "metrics.csv").write_text("step,dataset,train/step_loss\n50,folder,0.5\n")
    children.reports[FIT]()
    assert tuner.state.epoch == 0
    header, rows = "step,dataset,epoch,train/loss", ["25,folder,1,0.5", "50,folder,2,0.4"]
    (run.folder / "metrics.csv").write_text("\n".join([header, *rows, "75,fol"]))
    children.reports[FIT]()
    assert (tuner.state.epoch, tuner.state.epochs) == (2, 14)
    for event in children.released.values():
        event.set()
    finish(tuner)
    assert tuner.state.state == "finished"
    assert tuner.state.comparison is not None
    assert tuner.state.comparison.held_out.forgotten == 2
    assert len(tuner.state.notes) == 2  # MNIST is missing; that of the comparison
    (_, fit), (_, compare) = children.started
    assert fit[0] == "fit"
    assert "--init_from=pretrained" in fit
    assert json.loads(compare[0])["after"] == str(run.folder)


def test_without_its_data_set_a_network_keeps_its_calibration(
    tuner: FineTuner, children: Children
) -> None:
    for event in children.released.values():
        event.set()

    def train(_: Sequence[str]) -> bytes:
        run_of(tuner).write_summary({"state": "finished", "temperature": 0.05, "min_digit": 0.5})
        return b""

    children.actions[FIT] = train
    tuner.start(None)
    finish(tuner)
    before, after = Run(PRETRAINED_FOLDER).summary(), run_of(tuner).summary()
    names = ("temperature", "digit_slope", "digit_offset", "min_digit")
    assert [after[name] for name in names] == [before[name] for name in names]
    assert after["state"] == "finished"


def test_only_one_fine_tuning_runs_at_a_time(tuner: FineTuner, children: Children) -> None:
    tuner.start(None)
    with pytest.raises(ProblemError, match="learning already") as raised:
        tuner.start(None)
    assert (raised.value.status, raised.value.kind) == (409, "already_learning")
    children.released[FIT].set()
    with pytest.raises(ProblemError, match="learning already"):
        tuner.start(None)  # it compares
    children.released[COMPARE].set()
    finish(tuner)
    tuner.start(None)
    finish(tuner)
    assert tuner.state.run == "version_1"
    assert len(children.started) == 4


def test_learning_starts_from_the_base_again(tuner: FineTuner, children: Children) -> None:
    for event in children.released.values():
        event.set()
    children.actions[FIT] = lambda _: make_run(run_of(tuner), "a day")
    tuner.start("pretrained")
    finish(tuner)
    state = tuner.start("version_0")
    finish(tuner)
    assert (state.base, state.run) == ("pretrained", "version_1")


def make_run(run: Run, started: str) -> bytes:
    """Write what the page needs to know of a run; its network is not loaded."""
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    run.best.write_bytes(b"")
    run.write_summary({**Run(PRETRAINED_FOLDER).summary(), "started": started})
    return b""


def test_a_run_that_another_process_makes_with_the_same_name_is_its_own_base(
    tuner: FineTuner, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelRegistry, "load", lambda self, name: self.default)
    tuner.start(None)
    tuner.cancel()  # its directory is removed
    make_run(Run(tuner.settings.root / "version_0"), "a day")
    state = tuner.start("version_0")
    assert (state.base, state.run) == ("version_0", "version_1")
    tuner.cancel()
    children.released[FIT].set()
    children.released[COMPARE].set()
    children.actions[FIT] = lambda _: make_run(run_of(tuner), "a day")
    assert tuner.start("version_0").run == "version_1"
    finish(tuner)
    make_run(Run(tuner.settings.root / "version_1"), "another day")  # the user has replaced it
    assert tuner.start("version_1").base == "version_1"
    finish(tuner)


def test_a_terminal_that_is_closed_does_not_stop_learning(
    tuner: FineTuner, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(fine_tuning, "say", fail)
    for event in children.released.values():
        event.set()
    tuner.start(None)
    finish(tuner)
    assert tuner.state.state == "finished"


def test_a_network_of_other_classes_is_refused_at_once(
    tuner: FineTuner, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    probabilities = torch.full((1, 5), 0.2)
    monkeypatch.setattr(Recognizer, "probabilities", lambda self, images: probabilities)
    with pytest.raises(ProblemError, match="has 5 outputs, but there are 10 digits; select"):
        tuner.start(None)
    assert tuner.state.state == "idle"
    assert not tuner.settings.root.exists()


def test_without_corrected_digits_nothing_starts(tuner: FineTuner, children: Children) -> None:
    for path in tuner.settings.folder.rglob("*.png"):
        path.unlink()
    with pytest.raises(ProblemError, match="no corrected digits yet: draw a digit") as raised:
        tuner.start(None)
    assert raised.value.kind == "no_corrections"
    assert tuner.state.state == "idle"
    assert not tuner.settings.root.exists()


def test_an_unknown_run_is_refused(tuner: FineTuner, children: Children) -> None:
    for name in ("version_9", "../version_0", str(PRETRAINED_FOLDER)):
        with pytest.raises(ProblemError, match="run not found"):
            tuner.start(name)
    assert children.started == []


def test_a_directory_of_runs_that_cannot_be_created_is_reported(
    tuner: FineTuner, children: Children
) -> None:
    tuner.settings.root.write_text("a file")
    with pytest.raises(ProblemError, match="cannot save runs in") as raised:
        tuner.start(None)
    assert raised.value.kind == "not_started"
    assert tuner.state.state == "idle"


def test_a_cancelled_fine_tuning_leaves_nothing(tuner: FineTuner, children: Children) -> None:
    tuner.start(None)
    assert tuner.cancel().state == "cancelled"
    assert not run_of(tuner).folder.exists()
    with pytest.raises(ProblemError, match="nothing to cancel"):
        tuner.cancel()
    assert tuner.start(None).state == "running"  # another one can start


def test_what_a_cancelled_fine_tuning_has_saved_is_named(
    tuner: FineTuner, children: Children
) -> None:
    tuner.start(None)
    run_of(tuner).recent().write_bytes(b"saved")
    message = tuner.cancel().message
    assert message == (
        f"The unfinished run {run_of(tuner).folder} is kept; to continue it: "
        f"python -m mnist_lightning resume {run_of(tuner).folder}"
    )


def fail(_: Sequence[str]) -> bytes:
    raise ChildFailedError("no file is an image of a digit")


@pytest.mark.parametrize("statement", [FIT, COMPARE])
def test_a_failure_is_reported_with_its_reason(
    tuner: FineTuner,
    children: Children,
    statement: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    children.actions[statement] = fail
    for event in children.released.values():
        event.set()
    tuner.start(None)
    finish(tuner)
    assert (tuner.state.state, tuner.state.message) == (
        *("failed", "no file is an image of a digit."),
    )
    assert capsys.readouterr().err == "learning failed: no file is an image of a digit\n"


def test_an_invalid_result_is_reported_in_one_line(tuner: FineTuner, children: Children) -> None:
    children.actions[COMPARE] = lambda _: b'{"own": 3}\nx'
    for event in children.released.values():
        event.set()
    tuner.start(None)
    finish(tuner)
    assert tuner.state.state == "failed"
    assert "\n" not in str(tuner.state.message)


def test_a_run_with_the_name_of_the_served_one_is_not_created(
    tmp_path: Path, children: Children, tuner: FineTuner
) -> None:
    served = tmp_path / "elsewhere" / "version_0"
    models = tuner._models
    models.run = Run(served)  # the page finds runs by name
    assert tuner._create_run().folder.name == "version_1"
    assert not (tuner.settings.root / "version_0").exists()


def test_the_end_of_the_server_stops_the_child(tuner: FineTuner, children: Children) -> None:
    tuner.stop()  # nothing is running
    tuner.start(None)
    tuner.stop()
    assert tuner.state.state == "cancelled"
