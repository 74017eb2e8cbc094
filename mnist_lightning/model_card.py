"""What to say of a model that leaves: its metadata, for programs, and its card, for people."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mnist_lightning import __version__, images
from mnist_lightning.evaluation.metrics import wilson
from mnist_lightning.networks import describe
from mnist_lightning.predict import Recogniser


def metadata(summary: dict[str, Any], recogniser: Recogniser) -> dict[str, Any]:
    """What a program needs to know of a model, in primitives."""
    return {
        "made_by": f"mnist_lightning {__version__}",
        "network": describe(recogniser.network),
        "parameters": sum(weight.numel() for weight in recogniser.network.parameters()),
        "temperature": recogniser.temperature,
        "mean": images.MEAN,
        "std": images.STD,
        "preprocessing": images.VERSION,
        "dataset": summary["dataset"],
        "checksum": summary["checksum"],
        "extra": list(summary.get("extra_checksums", {})),
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
    environment = Environment(
        loader=PackageLoader("mnist_lightning", ""),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.2f} %"
    environment.filters["code"] = lambda text: f"`{text}`"
    test = None
    if about["test_total"]:
        correct, total = int(about["test_correct"]), int(about["test_total"])
        low, high = wilson(correct, total)
        test = {"correct": correct, "total": total, "accuracy": correct / total}
        test |= {"low": low, "high": high}
    return environment.get_template("model_card.md").render(
        about=about,
        name=about["network"]["class_path"].rsplit(".", 1)[-1],
        format=format,
        file=file,
        output=output,
        checked=checked,
        test=test,
        versions=", ".join(f"{name} {version}" for name, version in about["versions"].items()),
    )
