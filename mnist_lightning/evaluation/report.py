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
from mnist_lightning.evaluation.run_analysis import FIGURE_NAMES, RunAnalysis
from mnist_lightning.files import write_atomically
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import printable

PAGE, FACTS = "report.html", "report.json"


def write(analysis: RunAnalysis, run: Run, folder: Path) -> None:
    """Write the page, the JSON file and the images; remove the images of an earlier report."""
    images = {name: plots.png(figure) for name, figure in analysis.figures.items()}
    folder.mkdir(exist_ok=True)
    for name in FIGURE_NAMES - images.keys():
        (folder / f"{name}.png").unlink(missing_ok=True)
    for name, content in images.items():
        write_atomically(content, folder / f"{name}.png")
    text = json.dumps(_without_nan(analysis.facts), indent=2, allow_nan=False) + "\n"
    write_atomically(text.encode(), folder / FACTS)
    write_atomically(page(analysis, run, images).encode(), folder / PAGE)


def _without_nan(facts: Any) -> Any:
    """Replace NaN and infinities, which JSON does not have, by null."""
    if isinstance(facts, dict):
        return {name: _without_nan(value) for name, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_without_nan(value) for value in facts]
    return None if isinstance(facts, float) and not math.isfinite(facts) else facts


def page(analysis: RunAnalysis, run: Run, images: dict[str, bytes]) -> str:
    """Render the page, with all its images inside."""
    embedded = {name: base64.b64encode(content).decode() for name, content in images.items()}
    return templating.fill(
        "evaluation/report.html",
        facts=analysis.facts,
        missing=analysis.missing,
        images=embedded,
        name=printable(run.folder.name),
        folder=printable(str(run.folder)),
        config=yaml.safe_dump(analysis.facts["config"], sort_keys=False),
        version=__version__,
    )
