"""Analyze a run: its results as plain numbers and as figures."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mnist_lightning.data.datasets import DigitData
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.evaluation import attribution, corruptions, metrics, plots
from mnist_lightning.inference import Recognizer
from mnist_lightning.networks.calibration import log_loss, tempered
from mnist_lightning.preprocessing.mnist_format import normalize
from mnist_lightning.runs.metrics_csv import (
    METRICS_FILE,
    PredictionsTable,
    read_history,
    read_predictions,
)
from mnist_lightning.runs.run_directory import Run

Ask = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

COLUMNS, SHOWN = 6, 24  # pictures in a grid
LOOKED_INTO = 10  # pictures whose parts are asked about
DISTURBED = 2000  # images for each grade of each disturbance
BATCH = 200


FIGURE_NAMES = {
    *("samples", "curves", "predictions", "confusion", "mistakes", "closest_calls"),
    *("reliability", "robustness", "attributions"),
}


@dataclass
class Findings:
    """What was found.

    Attributes:
        facts: every figure, as what JSON can hold; NaN is None.
        figures: the pictures by name.
        missing: what could not be found out, and why.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def examine(run: Run, data: DigitData, recognizer: Recognizer | None) -> Findings:
    """Find out all that can be found out about a run.

    Args:
        run: with its tables.
        data: the data set it was trained on.
        recognizer: its best checkpoint's network; None leaves out what would be asked of it.

    Raises:
        UserError: a table of the run is damaged, or of other data.
    """
    findings = Findings()
    pixels, labels = data.test_images.numpy(), data.test_labels.numpy()
    findings.facts["summary"] = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in run.summary().items()
    }
    findings.facts["config"] = run.read_config()
    findings.figures["samples"] = plots.samples(pixels, labels)
    _history(run, findings)
    if not run.predictions.is_file():
        remedy = f"{PROGRAM} {'test' if run.best.is_file() else 'resume'} {run.reference}"
        findings.missing.append(f"no predictions: it has not been tested; {remedy}")
        return findings
    table = read_predictions(run.predictions)
    count = len(table.true)
    if not np.array_equal(table.true, labels[:count]):
        raise UserError(f"{run.predictions} is not of the test images of {data.name}")
    if not np.isfinite(table.probabilities).all():
        findings.missing.append("no figures of the test: it diverged, and answers with no numbers")
        return findings
    _test(table, pixels[:count], findings)
    _calibration(table, run.temperature, findings)
    if recognizer is not None:
        _disturbances(recognizer, pixels[:DISTURBED], labels[:DISTURBED], findings)
        _attributions(recognizer, table, pixels[:count], findings)
    return findings


def _history(run: Run, findings: Findings) -> None:
    path = run.folder / METRICS_FILE
    history = read_history(path)
    findings.facts["history"] = {name: _plain(values) for name, values in history.items()}
    if history["train/loss"]:
        findings.figures["curves"] = plots.curves(history)
    else:
        findings.missing.append(f"no curves: {path} has no whole epoch")


def _test(table: PredictionsTable, pixels: NDArray[np.uint8], findings: Findings) -> None:
    true, predicted, probabilities = table
    right = true == predicted
    correct, total = int(right.sum()), len(true)
    counts = metrics.confusion(true, predicted, probabilities.shape[1])
    classes = metrics.per_class(counts)
    surest, closest = (
        metrics.surest_mistakes(true, probabilities),
        metrics.closest_calls(true, probabilities),
    )
    findings.facts["test"] = {
        "accuracy": correct / total,
        "interval": list(metrics.wilson(correct, total)),
        "correct": correct,
        "total": total,
        "log_loss": log_loss(probabilities, true),
    }
    findings.facts["confusion"] = counts.tolist()
    findings.facts["digits"] = [
        {"digit": digit, **dict(zip(classes._fields, map(_number, of), strict=True))}
        for digit, of in enumerate(zip(*classes, strict=True))
    ]
    findings.facts["surest_mistakes"] = _images(table, surest[:SHOWN])
    findings.facts["closest_calls"] = _images(table, closest[:SHOWN])
    figures = findings.figures
    figures["predictions"] = plots.predictions(pixels, true, predicted)
    figures["confusion"] = plots.confusion(counts)
    for name, chosen in (("mistakes", surest[:SHOWN]), ("closest_calls", closest[:SHOWN])):
        if len(chosen):
            figures[name] = plots.predictions(
                pixels[chosen],
                true[chosen],
                predicted[chosen],
                -(-len(chosen) // COLUMNS),
                COLUMNS,
                probabilities[chosen].max(axis=1),
            )


def _images(table: PredictionsTable, chosen: NDArray[np.int64]) -> list[dict[str, Any]]:
    return [
        {
            "index": int(index),
            "true": int(table.true[index]),
            "predicted": int(table.predicted[index]),
            "confidence": float(table.probabilities[index].max()),
        }
        for index in chosen
    ]


def _calibration(table: PredictionsTable, temperature: float | None, findings: Findings) -> None:
    right = table.true == table.predicted
    stages = {"as it is": table.probabilities}
    if temperature is not None:
        stages["temperature-scaled"] = tempered(table.probabilities, temperature)
    else:
        findings.missing.append("no temperature: a run fits one at its end, on the images held out")
    found = {
        name: metrics.calibration(probabilities.max(axis=1), right)
        for name, probabilities in stages.items()
    }
    findings.facts["calibration"] = {
        "temperature": temperature,
        **{
            name.replace("-", "_").replace(" ", "_"): {
                "error": of.error,
                "log_loss": log_loss(stages[name], table.true),
                "edges": _plain(of.edges),
                "support": of.support.tolist(),
                "confidence": _plain(of.confidence),
                "accuracy": _plain(of.accuracy),
            }
            for name, of in found.items()
        },
    }
    findings.figures["reliability"] = plots.reliability(found)


def _disturbances(
    recognizer: Recognizer,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    findings: Findings,
) -> None:
    count = len(labels)

    def correct(images: NDArray[np.uint8]) -> int:
        return int((_ask(recognizer, images).argmax(axis=1) == labels).sum())

    kinds = []
    for kind in corruptions.KINDS:
        right = [correct(corruptions.disturbed(kind, pixels, s)) for s in kind.strengths]
        intervals = [metrics.wilson(number, count) for number in right]
        accuracies = [number / count for number in right]
        kinds.append(plots.Robustness(kind.name, kind.unit, kind.strengths, accuracies, intervals))
    undisturbed = correct(pixels) / count
    findings.facts["robustness"] = {
        "images": count,
        "undisturbed": undisturbed,
        "kinds": [of._asdict() for of in kinds],
    }
    findings.figures["robustness"] = plots.robustness(kinds, undisturbed)


def _attributions(
    recognizer: Recognizer,
    table: PredictionsTable,
    pixels: NDArray[np.uint8],
    findings: Findings,
) -> None:
    """Look into the surest mistakes, and into the first right answer of other digits."""
    mistakes = metrics.surest_mistakes(table.true, table.probabilities)[: LOOKED_INTO // 2]
    right = table.true == table.predicted
    firsts = [np.flatnonzero(right & (table.true == digit))[:1] for digit in np.unique(table.true)]
    chosen = np.concatenate([mistakes, *firsts])[:LOOKED_INTO]
    images, network = pixels[chosen], recognizer.network
    device = next((parameter.device for parameter in network.parameters()), None)
    maps = {
        "saliency": attribution.saliency(network, _normalized(images).to(device)),
        "occlusion": attribution.occlusion(lambda asked: _ask(recognizer, asked), images),
    }
    titles = [f"{table.true[i]} read as {table.predicted[i]}" for i in chosen]
    findings.figures["attributions"] = plots.attributions(images, titles, maps)


def _ask(recognizer: Recognizer, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    batches = torch.split(_normalized(images), BATCH)
    return torch.cat([recognizer.probabilities(batch) for batch in batches]).numpy()


def _normalized(images: NDArray[np.uint8]) -> torch.Tensor:
    return normalize(torch.from_numpy(np.ascontiguousarray(images)))


def _plain(values: Any) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else value.item() if hasattr(value, "item") else value
