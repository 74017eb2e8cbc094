"""The figures in the documents are those in `results/`."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.documented_code import blocks

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
FIGURE = re.compile(r"(?<![\w.])\d[\d,.]*(?: ± [\d.]+)? (?:%|s\b|min\b|ms\b|times\b|parameters\b)")
CODE = re.compile(r"^```.*?^```$", re.M | re.S)


def render_results() -> Any:
    """Import docs/render_results.py."""
    path = ROOT / "docs" / "render_results.py"
    spec = importlib.util.spec_from_file_location("render_results", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["render_results"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured_figures() -> set[str]:
    """Return the figures of all measurements that are not rows."""
    files = sorted((RESULTS / "measurements").glob("*.json"))
    return {figure for path in files for figure in json.loads(path.read_text())["figures"]}


def test_the_documents_and_configs_show_the_current_results() -> None:
    for path, text in render_results().rendered().items():
        assert path.read_text() == text, "run `python docs/render_results.py`"


def test_each_row_is_in_a_table() -> None:
    text = (ROOT / "docs" / "results.md").read_text()
    for path in RESULTS.glob("*.json"):
        assert f"[{path.stem}]" in text or f"| {path.stem} (" in text


def test_a_table_shows_the_figures_of_its_file() -> None:
    row = json.loads((RESULTS / "mlp.json").read_text())
    accuracies = [100 * result["test_accuracy"] for result in row["results"]]
    mean = sum(accuracies) / len(accuracies)
    for name in ("README.md", "docs/results.md"):
        (line, *_) = re.findall(r"^\| \[mlp\].*$", (ROOT / name).read_text(), re.M)
        assert f"| {row['parameters']:,} | {row['epochs']} | {mean:.2f} ± " in line


def test_the_readme_has_no_other_figure() -> None:
    render = render_results()
    text = CODE.sub("", render.TABLE.sub("", (ROOT / "README.md").read_text()))
    figures = set(FIGURE.findall(text))
    assert len(figures) > 4
    assert figures <= measured_figures()


@pytest.mark.parametrize("name", ["export", "fit", "predict", "resume", "runs", "verify"])
def test_a_transcript_is_complete(name: str) -> None:
    text = (RESULTS / "transcripts" / f"{name}.txt").read_text()
    assert text.startswith("$ python -m mnist_lightning ")
    assert "Traceback" not in text
    assert " error: " not in text


def test_the_output_in_the_readme_is_that_of_a_transcript() -> None:
    files = sorted((RESULTS / "transcripts").glob("*.txt"))
    recorded = {line for path in files for line in path.read_text().splitlines()}
    shown = [line for block in blocks(ROOT / "README.md", "") for line in block.splitlines()]
    assert len(shown) > 60
    assert [line for line in shown if line.strip() not in ("", "…") and line not in recorded] == []
