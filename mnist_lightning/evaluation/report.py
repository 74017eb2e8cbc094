"""Write the report of a run: one page, its figures as JSON, its images as PNG files."""

import base64
import json
import math
from pathlib import Path
from typing import Any

import yaml

from mnist_lightning import templating
from mnist_lightning.errors import __version__
from mnist_lightning.evaluation import plots
from mnist_lightning.evaluation.run_analysis import FIGURE_NAMES, Findings
from mnist_lightning.files import write_atomically
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import printable

PAGE, FIGURES = "report.html", "report.json"


def write(findings: Findings, run: Run, folder: Path) -> None:
    """Write the page, the figures and the pictures; what an earlier report left is removed."""
    pictures = {name: plots.png(figure) for name, figure in findings.figures.items()}
    folder.mkdir(exist_ok=True)
    for name in FIGURE_NAMES - pictures.keys():
        (folder / f"{name}.png").unlink(missing_ok=True)
    for name, content in pictures.items():
        write_atomically(content, folder / f"{name}.png")
    text = json.dumps(_without_nan(findings.facts), indent=2, allow_nan=False) + "\n"
    write_atomically(text.encode(), folder / FIGURES)
    write_atomically(page(findings, run, pictures).encode(), folder / PAGE)


def _without_nan(facts: Any) -> Any:
    """Replace what JSON has no number for by null: NaN and infinities."""
    if isinstance(facts, dict):
        return {name: _without_nan(value) for name, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_without_nan(value) for value in facts]
    return None if isinstance(facts, float) and not math.isfinite(facts) else facts


def page(findings: Findings, run: Run, pictures: dict[str, bytes]) -> str:
    """Fill the page; everything it shows is in it."""
    embedded = {name: base64.b64encode(content).decode() for name, content in pictures.items()}
    return templating.fill(
        "evaluation/report.html",
        facts=findings.facts,
        missing=findings.missing,
        pictures=embedded,
        name=printable(run.folder.name),
        folder=printable(str(run.folder)),
        config=yaml.safe_dump(findings.facts["config"], sort_keys=False),
        version=__version__,
    )
