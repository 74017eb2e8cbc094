"""The lessons: their code runs, prints what they show, and uses public names only."""

import ast
import re
from pathlib import Path

import pytest

import mnist_lightning
from mnist_lightning.evaluation import glossary
from mnist_lightning.networks.registry import ARCHITECTURES
from tests.documented_code import assert_same_output, examples, run_examples

DOCS = Path(__file__).parent.parent.parent / "docs"
LESSONS = sorted((DOCS / "lessons").glob("[1-7]-*.md"))
QUESTIONS = (
    "What is log_interval?",
    "Why a seed?",
    "What are nondeterministic algorithms?",
    "What is an activation function?",
    "Linear or nonlinear?",
    "What is a tensor image?",
    "What is normalizing?",
    "What is a computational graph?",
)
LIBRARIES = {"lightning", "matplotlib", "numpy", "tensorboard", "torch", "torchmetrics"}
STANDARD_LIBRARY = {"tempfile", "copy", "pathlib"}

each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)


def prose(document: Path) -> str:
    """Return the text of a document without its blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.S | re.M)


def test_there_are_seven_lessons_and_the_overview_links_each() -> None:
    linked = re.findall(r"\((\d-[a-z-]+\.md)\)", (DOCS / "lessons/README.md").read_text())
    assert list(dict.fromkeys(linked)) == [lesson.name for lesson in LESSONS]
    assert len(LESSONS) == 7


@each_lesson
def test_the_code_of_a_lesson_runs_on_the_bundled_digits(
    lesson: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY"):  # as without a network
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    printed = run_examples(lesson, tmp_path)
    for output, example in zip(printed, examples(lesson), strict=True):
        assert bool(output) == bool(example.output), example.code


@pytest.mark.mnist
@each_lesson
def test_the_code_of_a_lesson_prints_the_documented_output(
    lesson: Path, tmp_path: Path, mnist_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").symlink_to(mnist_dir)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    printed = run_examples(lesson, tmp_path)
    for output, example in zip(printed, examples(lesson), strict=True):
        assert_same_output(output, example.output)


@each_lesson
def test_a_lesson_has_predictions_a_figure_a_summary_and_three_exercises(lesson: Path) -> None:
    text = prose(lesson)
    assert "**Predict first:**" in text
    assert re.search(r"!\[[^\]]+\]\(\.\./images/lesson_\w+\.png\)", text)
    exercises = text.split("\n## Exercises\n")[1]
    assert re.findall(r"^\*\*(\d)\.\*\* ", exercises, re.M) == ["1", "2", "3"]
    answers = r"^<details><summary>Answer</summary>\n\n.*?\n\n</details>$"
    assert len(re.findall(answers, exercises, re.S | re.M)) == 3
    summary = text.split("\n## Summary\n\n")[1].split("\n\n")[0]
    assert len(re.findall(r"[.!?](?:\s|$)", summary)) == 3


@each_lesson
def test_a_lesson_uses_only_public_names(lesson: Path) -> None:
    public = {"mnist_lightning": set(mnist_lightning.__all__)}
    public |= {cls.__module__: {name} for name, cls in ARCHITECTURES.items()}
    for example in examples(lesson):
        for node in ast.walk(ast.parse(example.code)):
            if isinstance(node, ast.Attribute):
                assert not re.match("_[^_]", node.attr), node.attr
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= {*LIBRARIES, *STANDARD_LIBRARY}
            if isinstance(node, ast.ImportFrom):
                module, names = node.module or "", {alias.name for alias in node.names}
                if module.split(".")[0] == "mnist_lightning":
                    assert names <= public[module]
                else:
                    assert module.split(".")[0] in LIBRARIES | STANDARD_LIBRARY


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_front_page_links_a_complete_answer(question: str) -> None:
    front_page = (DOCS / "index.md").read_text()
    links = re.findall(rf"\[{re.escape(question)}\]\((lessons/[\w.-]+)#([\w-]+)\)", front_page)
    assert len(links) == 1
    page, anchor = links[0]
    assert anchor == re.sub(r"[^\w -]", "", question.lower()).replace(" ", "-")
    section = (DOCS / page).read_text().split(f"\n## {question}\n\n")[1]
    answer = section.split("\n\n")[0]
    assert 40 <= len(answer.split()) <= 150  # read within a minute


@pytest.mark.parametrize("document", [*LESSONS, DOCS / "index.md"], ids=lambda path: path.stem)
def test_links_to_the_glossary_name_existing_terms(document: Path) -> None:
    anchors = {entry.anchor for entry in glossary.entries()}
    linked = set(re.findall(r"glossary\.md#(term-[\w-]+)", document.read_text()))
    assert linked <= anchors
    assert linked or document not in LESSONS
