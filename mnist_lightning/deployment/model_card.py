"""The metadata and the model card of an exported network."""

from typing import Any, NamedTuple

from mnist_lightning import templating
from mnist_lightning.errors import __version__
from mnist_lightning.evaluation.metrics import wilson
from mnist_lightning.inference import Recognizer
from mnist_lightning.networks.registry import describe
from mnist_lightning.preprocessing import mnist_format
from mnist_lightning.templating import percent


def metadata(summary: dict[str, Any], recognizer: Recognizer) -> dict[str, Any]:
    """What a program needs to know of a model, in primitives."""
    return {
        "made_by": f"mnist_lightning {__version__}",
        "network": describe(recognizer.network),
        "members": len(getattr(recognizer.network, "members", "1")),
        "parameters": sum(weight.numel() for weight in recognizer.network.parameters()),
        "temperature": recognizer.temperature,
        "mean": mnist_format.MEAN,
        "std": mnist_format.STD,
        "preprocessing": mnist_format.VERSION,
        "dataset": summary["dataset"],
        "checksum": summary["checksum"],
        "extra": list(summary.get("extra_checksums") or {}),
        "seed": summary["seed"],
        "commit": summary.get("commit"),
        "versions": summary["versions"],
        "val_accuracy": summary.get("val/accuracy"),
        "test_correct": summary.get("test/correct"),
        "test_total": summary.get("test/total"),
    }


def card(about: dict[str, Any], format: str, file: str, output: str, checked: str) -> str:
    """The card, as Markdown.

    Args:
        about: the metadata.
        format: what the file is.
        file: its name.
        output: what it gives: logits or probabilities.
        checked: how equal it is to the network it was made of.
    """
    return templating.fill(
        "deployment/model_card.md",
        about=about,
        name=_name(about),
        format=format,
        file=file,
        output=output,
        checked=checked,
        test=_tested(about),
        versions=", ".join(f"{name} {version}" for name, version in about["versions"].items()),
    )


def in_short(about: dict[str, Any]) -> str:
    """What people should know of a model that they try."""
    data = " and ".join([about["dataset"], *about["extra"]])
    told = f"It asks a {_name(about)} with {about['parameters']:,} parameters, trained on {data}"
    test = _tested(about)
    if test is not None:
        told += f", that reads {percent(test.accuracy)} of the test images rightly (95 % interval "
        told += f"{percent(test.low)} to {percent(test.high)})"
    return f"{told}. Do not let it read bank checks, medicine or ballots."


class Tested(NamedTuple):
    """How a model did on the test images, with the bounds of its accuracy's 95 % interval."""

    correct: int
    total: int
    accuracy: float
    low: float
    high: float


def _tested(about: dict[str, Any]) -> Tested | None:
    correct, total = about["test_correct"], about["test_total"]
    if not isinstance(correct, int) or not isinstance(total, int) or not 0 <= correct <= total > 0:
        return None
    return Tested(correct, total, correct / total, *wilson(correct, total))


def _name(about: dict[str, Any]) -> str:
    name: str = about["network"]["class_path"].rsplit(".", 1)[-1]
    return name if about["members"] == 1 else f"{name} of {about['members']}"
