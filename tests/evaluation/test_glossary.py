"""The glossary of the documents, which the package contains."""

import re
from pathlib import Path

import pytest

from mnist_lightning.evaluation import glossary
from mnist_lightning.evaluation.training_findings import PROBLEMS, Training

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "glossary.md"


def test_every_line_of_the_document_is_in_an_entry() -> None:
    blocks = re.findall(r"^```\{glossary\}\n(.*?)^```$", DOCUMENT.read_text(), re.S | re.M)
    lines = [line for block in blocks for line in block.splitlines() if line]
    terms = glossary.terms()
    names = [line for line in lines if not line.startswith(" ")]
    assert list(terms) == names
    definitions = " ".join(dict.fromkeys(terms.values()))
    assert definitions == " ".join(line.strip() for line in lines if line.startswith(" "))


def test_synonyms_have_one_definition() -> None:
    terms = glossary.terms()
    assert terms["configuration"] == terms["config"]
    assert glossary.find("config").names == ("configuration", "config")
    assert glossary.find("config").anchor == "term-configuration"


def test_upper_case_matters_only_if_two_terms_differ_in_it() -> None:
    assert glossary.find("Overfitting") == glossary.find("overfitting")


@pytest.mark.parametrize("kind", PROBLEMS)
def test_the_problems_that_a_training_reports_are_terms(kind: Training) -> None:
    assert glossary.find(kind).definition
    assert glossary.find("RUN") != glossary.find("run")
    assert glossary.find("Run") == glossary.find("run")
    with pytest.raises(KeyError):
        glossary.find("photosynthesis")


def test_anchors_are_unique() -> None:
    anchors = [entry.anchor.lower() for entry in glossary.entries() if entry.names[0] != "RUN"]
    assert len(set(anchors)) == len(anchors)
    assert all(re.fullmatch(r"term-[a-z0-9-]+", anchor) for anchor in anchors)
