"""Analyze a run: its results as plain numbers and as figures."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mnist_lightning.data.datasets import NOT_DIGITS, DigitData
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.evaluation import (
    attribution,
    corruptions,
    findings,
    metrics,
    non_digits,
    plots,
    significance,
)
from mnist_lightning.evaluation.calibration_finding import judge_calibration
from mnist_lightning.evaluation.findings import Finding
from mnist_lightning.evaluation.training_findings import TrainingFinding, judge_training
from mnist_lightning.inference import UNSURE_BELOW, Recognizer
from mnist_lightning.networks.calibration import apply_temperature, log_loss, log_odds
from mnist_lightning.preprocessing.normalization import normalize
from mnist_lightning.runs import metrics_csv, predictions_csv
from mnist_lightning.runs.predictions_csv import PredictionsTable
from mnist_lightning.runs.run_directory import Run

COLUMNS, MAX_SHOWN = 6, 24  # images in a grid
MAX_ATTRIBUTED = 10  # images with attribution maps
MAX_CORRUPTED = 1000  # images for each severity of each corruption
BATCH = 200


FIGURE_NAMES = {
    *("samples", "loss", "accuracy", "curves", "predictions", "confusion", "mistakes"),
    *("closest_calls", "reliability", "reliability_scaled", "robustness", "attributions"),
    "learning_curves",  # of former versions
}


@dataclass
class RunAnalysis:
    """The results of a run.

    Attributes:
        facts: every number, in dictionaries, sequences and arrays.
        figures: by name.
        findings: a judgment for each section of the report, by its name.
        missing: the parts that could not be computed, with the reasons.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    findings: dict[str, Finding | TrainingFinding] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def analyze(
    run: Run, data: DigitData, recognizer: Recognizer | None, data_dir: Path
) -> RunAnalysis:
    """Compute all results of a run.

    Args:
        run: the run.
        data: its data set.
        recognizer: the network of its best checkpoint; None: without robustness, non-digits and
            attributions.
        data_dir: may contain other data sets, which serve as non-digits.

    Raises:
        UserError: a table of the run is damaged, or belongs to other data.
    """
    analysis = RunAnalysis()
    pixels, labels = data.test_images.numpy(), data.test_labels.numpy()
    summary = analysis.facts["summary"] = run.summary()
    analysis.facts["config"] = run.read_config()
    analysis.figures["samples"] = plots.samples(pixels, labels)
    analysis.findings["reproduction"] = findings.judge_reproduction(summary, str(run.config))
    _history(run, analysis)
    if not run.predictions.is_file():
        fix = f"{PROGRAM} {'test' if run.best.is_file() else 'resume'} {run.reference}"
        analysis.missing.append(f"no predictions: the run has not been tested; {fix}")
        return analysis
    table = predictions_csv.read_predictions(run.predictions)
    count = len(table.true)
    if not np.array_equal(table.true, labels[:count]):
        raise UserError(
            f"{run.predictions} does not match the test images of {data.name}; run test again"
        )
    if not np.isfinite(table.probabilities).all():
        analysis.missing.append("no test results: the run diverged, and its predictions are NaN")
        return analysis
    temperature = summary.get("temperature")
    calibrated = table
    if temperature is not None:
        scaled = apply_temperature(table.probabilities, temperature)
        calibrated = table._replace(probabilities=scaled)
    _test(table, pixels[:count], analysis)
    _shown_predictions(calibrated, pixels[:count], analysis)
    _judge_test(calibrated, temperature, analysis)
    _calibration(table, calibrated, temperature, analysis)
    if recognizer is not None:
        _robustness(recognizer, pixels[:MAX_CORRUPTED], labels[:MAX_CORRUPTED], analysis)
        if data.name not in NOT_DIGITS and table.probabilities.shape[1] == 10:
            _non_digits(recognizer, table, data_dir, analysis)
        _attributions(recognizer, calibrated, pixels[:count], analysis)
    return analysis


def _history(run: Run, analysis: RunAnalysis) -> None:
    path = run.folder / metrics_csv.METRICS_FILE
    history = analysis.facts["history"] = metrics_csv.read_history(path)
    if history["train/loss"]:
        finding = analysis.findings["training"] = judge_training(history)
        for quantity in ("loss", "accuracy"):
            analysis.figures[quantity] = plots.learning_curve(history, quantity, finding.lowest)
        analysis.figures["curves"] = plots.curves(history)
    else:
        analysis.missing.append(f"no curves: {path} has no complete epoch")


def _test(table: PredictionsTable, pixels: plots.Images, analysis: RunAnalysis) -> None:
    true, predicted, probabilities = table
    correct, total = int(table.correct.sum()), len(true)
    facts, figures = analysis.facts, analysis.figures
    facts["test"] = {
        "accuracy": correct / total,
        "interval": significance.wilson(correct, total),
        "correct": correct,
        "total": total,
        "log_loss": log_loss(probabilities, true),
    }
    facts["confusion"] = metrics.confusion(true, predicted, probabilities.shape[1])
    classes = metrics.per_class(true, predicted, probabilities.shape[1])
    facts["digits"] = [
        {"digit": digit, **dict(zip(classes, values, strict=True))}
        for digit, values in enumerate(zip(*classes.values(), strict=True))
    ]
    figures["predictions"] = plots.predictions(pixels, true, predicted)
    figures["confusion"] = plots.confusion(facts["confusion"])


def _shown_predictions(
    table: PredictionsTable, pixels: plots.Images, analysis: RunAnalysis
) -> None:
    """Draw the most confident mistakes, and the correct predictions with the smallest margin."""
    true, predicted, probabilities = table
    confidence = probabilities.max(axis=1)
    for name, figure, find in (
        ("surest_mistakes", "mistakes", metrics.surest_mistakes),
        ("closest_calls", "closest_calls", metrics.closest_calls),
    ):
        indices = find(true, probabilities)[:MAX_SHOWN]
        shown = true[indices], predicted[indices], confidence[indices]
        analysis.facts[name] = [
            {"index": i, "true": true[i], "predicted": predicted[i], "confidence": confidence[i]}
            for i in indices
        ]
        if len(indices):
            rows = -(-len(indices) // COLUMNS)
            grid = plots.predictions(pixels[indices], *shown, rows, COLUMNS)
            analysis.figures[figure] = grid


def _judge_test(table: PredictionsTable, temperature: float | None, analysis: RunAnalysis) -> None:
    """Judge predictions; their probabilities are calibrated by `temperature`, if it is known."""
    true, _, probabilities = table
    judged, confidence = analysis.findings, probabilities.max(axis=1)
    judged["confusions"] = findings.judge_confusions(analysis.facts["confusion"])
    judged["digits"] = findings.judge_classes(true, table.correct)
    judged["mistakes"] = findings.judge_mistakes(true, probabilities, UNSURE_BELOW)
    judged["calibration"] = judge_calibration(confidence, table.correct, temperature)
    judged["closest_calls"] = findings.judge_closest_calls(true, probabilities)
    judged["examples"] = findings.judge_first(table.correct, plots.FIRST_IMAGES)


def _calibration(
    table: PredictionsTable,
    calibrated: PredictionsTable,
    temperature: float | None,
    analysis: RunAnalysis,
) -> None:
    """Compare confidence with accuracy, before and after temperature scaling."""
    stages = {"as_it_is": ("reliability", "uncalibrated", table)}
    if temperature is not None:
        scaled = ("reliability_scaled", "temperature-scaled", calibrated)
        stages["temperature_scaled"] = scaled
    else:
        analysis.missing.append(
            "no temperature: it is fitted on the validation set when a run ends"
        )
    facts: dict[str, Any] = {"temperature": temperature}
    for name, (figure, title, predictions) in stages.items():
        probabilities = predictions.probabilities
        result = metrics.calibration(probabilities.max(axis=1), table.correct)
        facts[name] = result._asdict() | {"log_loss": log_loss(probabilities, table.true)}
        analysis.figures[figure] = plots.reliability(title, result)
    analysis.facts["calibration"] = facts


def _robustness(
    recognizer: Recognizer, pixels: plots.Images, labels: NDArray[np.int64], analysis: RunAnalysis
) -> None:
    count = len(labels)

    def count_correct(images: plots.Images) -> int:
        return int((_predict(recognizer, images).argmax(axis=1) == labels).sum())

    results = []
    for kind in corruptions.CORRUPTIONS:
        correct = [count_correct(corruptions.corrupt(kind, pixels, s)) for s in kind.strengths]
        intervals = [significance.wilson(number, count) for number in correct]
        accuracies = [number / count for number in correct]
        results.append(plots.Robustness(*kind[:3], accuracies, intervals))
    clean_accuracy = count_correct(pixels) / count
    analysis.facts["robustness"] = {
        "images": count,
        "undisturbed": clean_accuracy,
        "kinds": [result._asdict() for result in results],
    }
    kinds = analysis.facts["robustness"]["kinds"]
    analysis.findings["robustness"] = findings.judge_corruptions(kinds, clean_accuracy)
    analysis.figures["robustness"] = plots.robustness(results, clean_accuracy)


def _non_digits(
    recognizer: Recognizer, table: PredictionsTable, data_dir: Path, analysis: RunAnalysis
) -> None:
    """Compare the odds of the highest probability of test images and of images without digits."""
    images = {kind: non_digits.draw(kind) for kind in non_digits.KINDS}
    images |= non_digits.read_other_data(data_dir)
    digits = log_odds(table.probabilities)
    detections = [
        non_digits.detect(kind, digits, log_odds(_predict(recognizer, pixels)))
        for kind, pixels in images.items()
    ]
    analysis.facts["non_digits"] = [detection._asdict() for detection in detections]
    analysis.findings["non_digits"] = findings.judge_non_digits(detections)


def _attributions(
    recognizer: Recognizer, table: PredictionsTable, pixels: plots.Images, analysis: RunAnalysis
) -> None:
    """Attribute the most confident mistakes, and the first correct predictions."""
    mistakes = metrics.surest_mistakes(table.true, table.probabilities)[: MAX_ATTRIBUTED // 2]
    correct = np.flatnonzero(table.correct)[: MAX_ATTRIBUTED - len(mistakes)]
    indices = np.concatenate([mistakes, correct])
    images, network = pixels[indices], recognizer.network
    device = next((parameter.device for parameter in network.parameters()), None)
    maps = {
        "saliency": attribution.saliency(network, _normalized(images).to(device)),
        "occlusion": attribution.occlusion(lambda covered: _predict(recognizer, covered), images),
    }
    titles = [f"{table.true[i]} predicted {table.predicted[i]}" for i in indices]
    analysis.findings["attributions"] = findings.judge_attributions(images, maps)
    analysis.figures["attributions"] = plots.attributions(images, titles, maps)


def _predict(recognizer: Recognizer, images: plots.Images) -> NDArray[np.float32]:
    batches = torch.split(_normalized(images), BATCH)
    return torch.cat([recognizer.probabilities(batch) for batch in batches]).numpy()


def _normalized(images: plots.Images) -> torch.Tensor:
    return normalize(torch.from_numpy(np.ascontiguousarray(images)))
