"""Write the tables of README.md and docs/results.md and the accuracies in configs, from results/.

    python docs/render_results.py

A table is between `<!-- results: COLUMNS of ROWS -->` and `<!-- end of results -->`.
"""

import re
from pathlib import Path
from statistics import fmean, stdev

from mnist_lightning.evaluation.published import RESULTS, PublishedRow, list_rows, read_row
from mnist_lightning.text import percent, plural

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "results.md")
CONFIGS = ROOT / "configs"
TABLE = re.compile(
    r"(<!-- results: ([\w%, ]+) of ([\w, ]+) -->\n).*?(<!-- end of results -->)", re.S
)
COMMENT = re.compile(r"^# test accuracy\b.*$", re.M)


def spread(accuracies: list[float]) -> str:
    """Write the mean and the standard deviation."""
    return f"{100 * fmean(accuracies):.2f} ± {percent(stdev(accuracies))}"


def interval(row: PublishedRow) -> str:
    """Write the 95 % prediction interval."""
    low, high = row.interval()
    return f"{100 * low:.2f} to {percent(min(high, 1))}"


def seconds(value: float) -> str:
    """Write a time, in minutes if it is long."""
    if value >= 120:
        return f"{value / 60:.0f} min"
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"


def link(row: PublishedRow, document: Path) -> str:
    """Link the name of a row to its config."""
    file = row.recipe.config_file
    if file is None:
        return f"{row.name} (`fit` without options)"
    return f"[{row.name}]({'../' if document.parent.name == 'docs' else ''}{file})"


def last_epoch(row: PublishedRow) -> str:
    """Write the accuracies of the last epoch's weights."""
    return spread([result.last_epoch_accuracy or result.test_accuracy for result in row.results])


COLUMNS = {
    "epochs": lambda row: str(row.epochs),
    "parameters": lambda row: f"{row.parameters:,}",
    "test accuracy": lambda row: spread(row.accuracies),
    "95 % prediction interval": interval,
    "seeds": lambda row: str(len(row.results)),
    "last epoch": last_epoch,
    "training": lambda row: seconds(row.fit_seconds),
}


def table(columns: list[str], rows: list[PublishedRow], document: Path) -> str:
    """Return a Markdown table with a line for each row."""
    lines = [["config", *columns], ["---"] * (len(columns) + 1)]
    lines += [[link(row, document), *(COLUMNS[name](row) for name in columns)] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def render_document(document: Path) -> str:
    """Return the text of a document with current tables."""

    def replace(found: re.Match[str]) -> str:
        columns, names = (found[group].split(", ") for group in (2, 3))
        rows = [read_row(RESULTS / f"{name}.json") for name in names]
        return f"{found[1]}\n{table(columns, rows, document)}\n{found[4]}"

    return TABLE.sub(replace, document.read_text())


def render_config(row: PublishedRow) -> tuple[Path, str]:
    """Return the path of a row's config, and its text with the current accuracy."""
    path = ROOT / (row.recipe.config_file or "")
    counts = f"{len(row.results)} seeds, {plural(row.epochs, 'epoch')}"
    line = f"# test accuracy {spread(row.accuracies)} ({counts}): results/{row.name}.json"
    text, replaced = COMMENT.subn(line, path.read_text(), count=1)
    if not replaced:
        raise SystemExit(f"{path}: no line starts with `# test accuracy`")
    return path, text


def rendered() -> dict[Path, str]:
    """Return the current text of each file that shows results."""
    rows = [read_row(path) for path in list_rows().values()]
    configs = dict(render_config(row) for row in rows if row.recipe.config_file)
    return configs | {document: render_document(document) for document in DOCUMENTS}


if __name__ == "__main__":
    for path, text in rendered().items():
        path.write_text(text)
