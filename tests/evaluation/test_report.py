"""The command report."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_lightning.evaluation import metrics, non_digits, significance
from mnist_lightning.runs.metrics_csv import METRICS_FILE, read_history
from mnist_lightning.runs.predictions_csv import read_predictions
from mnist_lightning.runs.run_directory import Run
from tests.conftest import DIGITS, Command

FIGURES = {
    "samples",
    "loss",
    "accuracy",
    "curves",
    "predictions",
    "confusion",
    "mistakes",
    "closest_calls",
    "reliability",
    "reliability_scaled",
    "robustness",
    "attributions",
}


def test_report_draws_the_results_of_the_run(trained_cli: Command, run_0: Run) -> None:
    result = trained_cli("report")
    assert result.status == 0, result.err
    folder = run_0.folder / "report"
    names = {f"{name}.png" for name in FIGURES}
    assert {path.name for path in folder.iterdir()} == names | {"report.html", "report.json"}
    wrong = 297 - run_0.summary()["test/correct"]
    assert f"{wrong} of 297 test images are misclassified" in result.out
    assert str(Path("lightning_logs/version_0/report/report.html")) in result.out
    for name in names:
        with Image.open(folder / name) as opened:
            image = np.asarray(opened.convert("L"))
        assert min(image.shape) > 500
        assert image.std() > 5, "nothing is drawn"


def test_every_number_is_in_the_json(trained_cli: Command, run_0: Run) -> None:
    assert trained_cli("report").status == 0
    facts = json.loads((run_0.folder / "report" / "report.json").read_text())
    summary, table = run_0.summary(), read_predictions(run_0.predictions)
    correct = table.true == table.predicted
    assert facts["summary"] == summary
    assert facts["config"] == run_0.read_config()
    assert facts["test"]["correct"] == summary["test/correct"]
    assert facts["test"]["accuracy"] == pytest.approx(summary["test/accuracy"])
    assert facts["test"]["log_loss"] == pytest.approx(summary["test/loss"], rel=1e-4)
    assert facts["test"]["interval"] == list(significance.wilson(int(correct.sum()), 297))
    assert np.sum(facts["confusion"]) == 297
    assert [row["recall"] for row in facts["digits"]] == pytest.approx(
        [correct[table.true == digit].mean() for digit in range(10)]
    )
    before, after = (facts["calibration"][name] for name in ("as_it_is", "temperature_scaled"))
    expected = metrics.calibration(table.probabilities.max(axis=1), correct)
    assert before["error"] == pytest.approx(expected.error)
    assert after["log_loss"] < before["log_loss"]
    assert facts["calibration"]["temperature"] == summary["temperature"]
    surest = [mistake["confidence"] for mistake in facts["surest_mistakes"]]
    assert surest == sorted(surest, reverse=True)
    assert facts["robustness"]["undisturbed"] == pytest.approx(summary["test/accuracy"])
    assert len(facts["robustness"]["kinds"]) == 18
    for kind in facts["robustness"]["kinds"]:
        for accuracy, (low, high) in zip(kind["accuracies"], kind["intervals"], strict=True):
            assert low <= accuracy <= high
    rows = facts["non_digits"]
    assert [row["kind"] for row in rows] == list(non_digits.KINDS)
    assert all(0 <= row["accepted"] <= 1 and 0 <= row["auroc"] <= 1 for row in rows)
    assert len(facts["history"]["val/accuracy"]) == 2


def test_without_the_network_its_figures_are_missing(trained_cli: Command, run_0: Run) -> None:
    run_0.best.unlink()
    folder = run_0.folder / "report"
    folder.mkdir(exist_ok=True)
    for name in ("robustness", "mine"):  # of an earlier report, and of the user
        (folder / f"{name}.png").write_bytes(b"old")
    result = trained_cli("report", "0")
    assert result.status == 0
    assert "images without digits and attributions are missing: no best.ckpt" in result.out
    names = {path.stem for path in folder.glob("*.png")}
    assert names == (FIGURES | {"mine"}) - {"robustness", "attributions"}
    page = (folder / "report.html").read_text()
    assert "images without digits and attributions are missing" in page


def test_a_report_made_again_is_the_same(trained_cli: Command, run_0: Run) -> None:
    reports = []
    for _ in range(2):
        trained_cli("report", "0")
        folder = run_0.folder / "report"
        reports.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert reports[0] == reports[1]


def test_missing_parts_are_reported_and_the_rest_is_drawn(trained_cli: Command, run_0: Run) -> None:
    run_0.predictions.unlink()
    (run_0.folder / "metrics.csv").unlink()
    result = trained_cli("report", "last")
    assert result.status == 0
    assert "no curves:" in result.out
    assert "has not been tested; python -m mnist_lightning test 0" in result.out
    names = {path.name for path in (run_0.folder / "report").iterdir()}
    assert names == {"samples.png", "report.html", "report.json"}


def test_damaged_predictions_are_refused(trained_cli: Command, run_0: Run) -> None:
    content = run_0.predictions.read_text()
    label = content.replace("\n0,", "\n0,17,", 1)
    for damaged in (content[:1000], content.replace("\n0,", "\n1,", 1), "", "nonsense\n1\n", label):
        run_0.predictions.write_text(damaged)
        result = trained_cli("report", "0")
        assert result.status == 1
        assert "predictions.csv is damaged or not a table of predictions" in result.err
    assert not (run_0.folder / "report").exists()


def test_a_run_of_other_data_or_of_none_is_refused(trained_cli: Command, run_0: Run) -> None:
    summary = run_0.summary()
    run_0.write_summary({**summary, "checksum": "0" * 64})
    assert "differs from the training data of the run" in trained_cli("report", "0").err
    run_0.write_summary({**summary, "dataset": "mnist"})
    result = trained_cli("report", "0")
    assert result.status == 1
    assert "give the directory of the data set: --data.data_dir DIR" in result.err
    (run_0.folder / "summary.json").unlink()
    assert "was not made by `fit`" in trained_cli("report", "0").err
    shutil.rmtree(run_0.folder)
    assert "no trained run in" in trained_cli("report").err


def test_a_run_that_diverged_is_reported_without_figures(command: Command, run_0: Run) -> None:
    wild = ["--model.optimizer", "SGD", "--model.optimizer.lr", "1e8", "--dashboards", "full"]
    assert command("fit", *DIGITS, "--trainer.max_epochs", "2", *wild).status == 0
    result = command("report", "0")
    assert result.status == 0, result.err
    assert "no test results: the run diverged" in result.out
    assert "temperature" not in run_0.summary()
    facts = json.loads((run_0.folder / "report" / "report.json").read_text())
    assert facts["history"]["train/loss"] == [None, None]
    assert facts["findings"]["training"]["kind"] == "diverged"
    assert "Diverged: the training loss is NaN or infinite in epoch 1." in result.out


def test_a_run_that_overfits_and_few_test_images_are_reported(command: Command, run_0: Run) -> None:
    fit = [*DIGITS, "--model.network", "MultilayerPerceptron", "--data.val_size", "1400"]
    fit += ["--model.optimizer.lr", "0.01", "--trainer.max_epochs", "40", "--dashboards", "none"]
    few = ["--trainer.limit_test_batches", "1", "--data.eval_batch_size", "20"]
    fitted = command("fit", *fit, *few)
    assert fitted.status == 0, fitted.err
    history = read_history(run_0.folder / METRICS_FILE)
    lowest = 1 + int(np.argmin(history["val/loss"]))
    sentence = (
        f"Overfitting: the validation loss is lowest in epoch {lowest} "
        f"({min(history['val/loss']):.4f}) and rises to {history['val/loss'][-1]:.4f}"
    )
    result = command("report", "0")
    assert sentence in " ".join(fitted.out.split())
    assert sentence in result.out
    assert "python -m mnist_lightning explain overfitting" in fitted.out
    assert "definitions of terms: python -m mnist_lightning explain TERM" in result.out
    assert "Too few images to tell: with 20 images" in result.out
    assert "Too few mistakes to tell" in result.out
    judged = json.loads((run_0.folder / "report" / "report.json").read_text())["findings"]
    kinds = {section: finding["kind"] for section, finding in judged.items()}
    assert kinds["training"] == "overfitting"
    assert kinds["calibration"] == "too few images"
    assert kinds["confusions"] == "too few mistakes"
    assert kinds["digits"] == "no harder class"


def test_fit_reports_a_run_that_does_not_learn_and_no_other(command: Command) -> None:
    slow = ["--model.optimizer", "SGD", "--model.optimizer.lr", "1e-7", "--dashboards", "none"]
    result = command("fit", *DIGITS, "--trainer.max_epochs", "3", *slow)
    assert "Underfitting: the accuracy reaches at most" in result.out
    result = command("fit", *DIGITS, "--trainer.max_epochs", "3", "--dashboards", "none")
    for kind in ("Underfitting", "Overfitting", "Diverging", "improving", "Too few"):
        assert kind not in result.out


def test_a_custom_network_is_used_if_its_class_is_named(
    command: Command, run_0: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nearby.py").write_text(
        "from mnist_lightning.networks.classic_cnn import ClassicCNN\n"
        "class Nearby(ClassicCNN): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ["--model.network", "nearby.Nearby"]
    assert command("fit", *DIGITS, "--trainer.max_epochs", "1", *own).status == 0
    assert "give the class with --model.network MODULE.CLASS" in command("report", "0").out
    assert command("report", "0", *own).status == 0
    assert (run_0.folder / "report" / "robustness.png").exists()
    result = command("report", "0", "--model.network", "nearby.Nobody")
    assert result.status == 2
    assert "cannot import a network class nearby.Nobody" in result.err


@pytest.mark.parametrize("name", ["checksum", "network", "versions", "seed", "fit_seconds"])
@pytest.mark.parametrize("value", [None, "nonsense", [5]])
def test_an_incomplete_summary_is_reported_as_damaged(
    command: Command, run_0: Run, name: str, value: object
) -> None:
    run_0.checkpoints.mkdir(parents=True)
    run_0.write_config({"data": 5})
    intact = {
        "dataset": "digits", "checksum": "0" * 64, "state": "finished", "started": "today",
        "device": "cpu", "network": {"class_path": "a.B"}, "versions": {}, "parameters": 1,
        "train_size": 1, "threads": 1, "seed": 1, "epochs": 1, "fit_seconds": 1.0,
    }  # fmt: skip
    run_0.write_summary(intact)
    assert "differs from the training data of the run" in command("report", "0").err
    if (name, value) != ("checksum", "nonsense"):
        run_0.write_summary(intact | {name: value})
        assert f"is damaged: {name} missing or invalid" in command("report", "0").err


def test_another_checkpoint_than_the_best_is_refused(trained_cli: Command, run_0: Run) -> None:
    assert trained_cli("report", str(run_0.best)).status == 0
    result = trained_cli("report", str(run_0.recent()))
    assert result.status == 2
    assert "report cannot use" in result.err


def test_validation_within_an_epoch_is_in_its_curves(command: Command, run_0: Run) -> None:
    often = ["--trainer.max_epochs", "2", "--trainer.val_check_interval", "0.5"]
    assert command("fit", *DIGITS, *often).status == 0
    history = read_history(run_0.folder / METRICS_FILE)
    assert len(history["val/loss"]) == 2
    assert np.isfinite(history["val/loss"]).all()
