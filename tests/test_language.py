"""The project does not use excluded words, and spelling is American."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# This file, and records that quote old messages and names.
EXCEPTIONS = {Path(__file__), ROOT / "CHANGELOG.md", ROOT / "docs" / "log.md"}
FILES = [
    path
    for pattern in ("*.md", "docs/**/*", "mnist_lightning/**/*", "tests/**/*", "benchmarks/*")
    for path in sorted(ROOT.glob(pattern))
    if path.suffix in (".md", ".py", ".html", ".js", ".sh", ".txt") and path not in EXCEPTIONS
]
EXCLUDED = re.compile(
    r"\b(go(es|ing|ne)? on with|hangs on|(is|are) told|(right|wrong)ly|will not do|none of ours"
    r"|held out ones|\w*(normalis|recognis|optimis|initialis)\w*|\w*cent(re|red|ring)"
    r"|colour\w*|neighbour\w*|behaviour\w*|licence|judgement)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_excluded_word_occurs(path: Path) -> None:
    excluded_words = [match[0] for match in EXCLUDED.finditer(path.read_text(encoding="utf-8"))]
    assert not excluded_words
