"""Write the report of a run: one page, its figures as JSON, its images as PNG files."""

import base64
import json
from pathlib import Path

import yaml

from mnist_lightning.errors import __version__
from mnist_lightning.evaluation import plots
from mnist_lightning.evaluation.glossary import TermLinks
from mnist_lightning.evaluation.run_analysis import FIGURE_NAMES, RunAnalysis
from mnist_lightning.files import write_atomically
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.text import fill_template, printable

PAGE, FACTS = "report.html", "report.json"
# The terms that the page links to their definitions, at its end.
TERMS = (
    *("overfitting", "underfitting", "diverged", "diverging", "training loss", "validation loss"),
    *("validation set", "test set", "epoch", "accuracy", "confidence", "confidence interval"),
    *("confusion", "confusion matrix", "precision", "recall", "F1", "log loss"),
    *("significant", "calibration", "calibration error", "overconfident", "underconfident"),
    *(
        "temperature",
        "corruption",
        "saliency",
        "occlusion",
        "augmentation",
        "dropout",
        "margin",
        "AUROC",
    ),
)


def write(analysis: RunAnalysis, run: Run, folder: Path) -> None:
    """Write the page, the JSON file and the images; remove the images of an earlier report."""
    images = {name: plots.png(figure) for name, figure in analysis.figures.items()}
    folder.mkdir(exist_ok=True)
    for name in FIGURE_NAMES - images.keys():
        (folder / f"{name}.png").unlink(missing_ok=True)
    for name, content in images.items():
        write_atomically(content, folder / f"{name}.png")
    # Arrays become lists; NaN and infinities, which JSON lacks, become None.
    judged = {name: finding._asdict() for name, finding in analysis.findings.items()}
    text = json.dumps(analysis.facts | {"findings": judged}, default=lambda array: array.tolist())
    facts = json.loads(text, parse_constant=lambda _: None)
    text = json.dumps(facts, indent=2, allow_nan=False) + "\n"
    write_atomically(text.encode(), folder / FACTS)
    page = fill_template(
        "evaluation/report.html",
        facts=facts,
        missing=analysis.missing,
        terms=TermLinks(TERMS),
        images={name: base64.b64encode(content).decode() for name, content in images.items()},
        name=printable(run.folder.name),
        folder=printable(str(run.folder)),
        config=yaml.safe_dump(facts["config"], sort_keys=False),
        version=__version__,
    )
    write_atomically(page.encode(), folder / PAGE)
