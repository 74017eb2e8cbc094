"""The metadata and the model card of an exported network."""

from typing import Any, NamedTuple

from mnist_lightning.errors import __version__
from mnist_lightning.evaluation.significance import wilson
from mnist_lightning.inference import Recognizer
from mnist_lightning.networks.registry import describe
from mnist_lightning.preprocessing import mnist_format, normalization
from mnist_lightning.text import code_span, fill_template, join_words, percent


def metadata(summary: dict[str, Any], recognizer: Recognizer) -> dict[str, Any]:
    """Return the metadata of a model for programs, as JSON types."""
    return {
        "made_by": f"mnist_lightning {__version__}",
        "network": describe(recognizer.network),
        "members": len(getattr(recognizer.network, "members", "1")),
        "parameters": sum(weight.numel() for weight in recognizer.network.parameters()),
        **recognizer.calibration._asdict(),
        "mean": normalization.MEAN,
        "std": normalization.STD,
        "preprocessing": mnist_format.VERSION,
        "dataset": summary["dataset"],
        "checksum": summary["checksum"],
        "extra": list(summary.get("extra_checksums") or {}),
        "seed": summary["seed"],
        "init_from": summary.get("init_from"),
        "teacher": summary.get("teacher"),
        "tested_epoch": summary.get("tested_epoch"),
        "commit": summary.get("commit"),
        "versions": summary["versions"],
        "val_accuracy": summary.get("val/accuracy"),
        "test_correct": summary.get("test/correct"),
        "test_total": summary.get("test/total"),
    }


def card(about: dict[str, Any], format: str, file: str, output: str, agreement: str) -> str:
    """Return the model card, as Markdown.

    Args:
        about: the metadata.
        format: of the file.
        file: its name.
        output: logits or probabilities.
        agreement: of the file with the original network, as text.
    """
    return fill_template(
        "deployment/model_card.md",
        about=about,
        name=_name(about),
        format=format,
        file=file,
        output=output,
        agreement=agreement,
        data=join_words([code_span(name) for name in (about["dataset"], *about["extra"])]),
        test=_test_result(about),
        versions=", ".join(f"{name} {version}" for name, version in about["versions"].items()),
    )


def summarize(about: dict[str, Any]) -> str:
    """Return a short text about a model for its users."""
    data = join_words([about["dataset"], *about["extra"]])
    text = f"Network: {_name(about)}, {about['parameters']:,} parameters, trained on {data}"
    test = _test_result(about)
    if test is not None:
        text += f". Its test accuracy is {percent(test.accuracy)} (95 % interval "
        text += f"{percent(test.low)} to {percent(test.high)})"
    return f"{text}. Do not use it for bank checks, medicine or ballots."


class TestResult(NamedTuple):
    """The result on the test set, with the bounds of the 95 % interval of the accuracy."""

    correct: int
    total: int
    accuracy: float
    low: float
    high: float


def _test_result(about: dict[str, Any]) -> TestResult | None:
    correct, total = about["test_correct"], about["test_total"]
    if not isinstance(correct, int) or not isinstance(total, int) or not 0 <= correct <= total > 0:
        return None
    return TestResult(correct, total, correct / total, *wilson(correct, total))


def _name(about: dict[str, Any]) -> str:
    name: str = about["network"]["class_path"].rsplit(".", 1)[-1]
    return name if about["members"] == 1 else f"{name} of {about['members']}"
