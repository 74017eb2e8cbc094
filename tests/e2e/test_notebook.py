"""The notebook: its saved outputs are complete, and it runs."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

TOUR = Path(__file__).parent.parent.parent / "notebooks" / "tour.ipynb"


def read(path: Path) -> NotebookNode:
    tour: NotebookNode = nbformat.read(path, as_version=4)
    return tour


def outputs(tour: NotebookNode) -> list[NotebookNode]:
    return [output for cell in tour.cells for output in cell.get("outputs", [])]


def count_images(tour: NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(tour))


def printed_text(tour: NotebookNode) -> str:
    return "".join(output.get("text", "") for output in outputs(tour))


def test_the_committed_notebook_was_executed_on_mnist_without_errors() -> None:
    tour = read(TOUR)
    code = [cell for cell in tour.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(output.output_type == "error" for output in outputs(tour))
    assert "mnist: 60,000 pictures to learn from, 5,000 of them held out" in printed_text(tour)
    assert count_images(tour) == 4


@pytest.mark.filterwarnings("ignore")  # of jupyter's own
def test_the_notebook_runs_without_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY"):  # as without a network
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    shutil.copy(TOUR, tmp_path)
    tour = read(tmp_path / TOUR.name)
    for cell in tour.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    NotebookClient(tour, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "digits: 1,500 pictures to learn from, 200 of them held out" in printed_text(tour)
    assert " 5/5 " in printed_text(tour)
    assert count_images(tour) == 4
