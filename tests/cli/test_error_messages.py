"""Error messages of the parser may quote a file: nothing that they contain is imported."""

import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mnist_lightning.cli import error_messages
from mnist_lightning.runs.run_directory import Run
from tests.conftest import DIGITS, Command
from tests.e2e.conftest import FIT
from tests.unsigned_files import remove_signatures

# Parts of messages of jsonargparse, with modules that nothing else imports.
PARTS = st.sampled_from(
    [
        "Option 'x' is not accepted",
        "Problem with given class_path 'antigravity.s'",
        "class_path='this.s'",
        "Got value: ",
        "Given value: NestedArg(key='x', val='3')",
        "Does not validate against any of the Union subtypes\n",
        "  Errors:\n    - Expected a dot import path string: this.s\n",
        "Not of type this.s: ",
        'Parser key "model.optimizer":\n',
        'Parser key "lr":\n',
        "Importing 'this.s' is not allowed",
        "unrecognized arguments: this.s",
    ]
)

_imports: list[str] = []


def _record_import(event: str, arguments: tuple[object, ...]) -> None:
    if event == "import":
        _imports.append(str(arguments[0]))


@pytest.fixture(scope="module")
def imports() -> list[str]:
    """Record attempted imports; an audit hook cannot be removed."""
    sys.addaudithook(_record_import)
    return _imports


@given(parts=st.lists(PARTS, max_size=8), text=st.text(max_size=40))
def test_no_text_of_a_message_is_imported(imports: list[str], parts: list[str], text: str) -> None:
    imports.clear()
    for command in ("fit", "resume"):
        error_messages.explain("".join(parts) + text, ["data.batch_size"], command)
    error_messages.explain('Parser key "model.network":\n' + "".join(parts), [], "fit")
    assert imports == []


def imitated_error(name: str) -> str:
    return f"Option 'x' is not accepted. Problem with given class_path '{name}.s'"


def test_a_value_in_a_file_that_imitates_an_error_imports_nothing(
    command: Command, run_0: Run, tmp_path: Path
) -> None:
    command(*FIT)
    remove_signatures(run_0)
    (tmp_path / "payload.py").write_text("open('executed', 'w')\n")
    (tmp_path / "own_nets.py").write_text(
        "from mnist_lightning.networks.tiny_cnn import TinyCNN as Own\n"
    )
    config = yaml.safe_load(run_0.config.read_text())
    config["model"]["optimizer"] = {
        "class_path": "torch.optim.LBFGS",
        "init_args": {"params": [], "line_search_fn": imitated_error("payload")},
    }
    run_0.config.write_text(yaml.safe_dump(config))
    settings = {"trainer": {"max_epochs": imitated_error("payload")}}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    command("resume", "0", "--trainer.max_epochs", "2")
    for named in ([], ["--model.network", "own_nets.Own"]):
        assert command("fit", *DIGITS, "--config", "settings.yaml", *named).status == 2
    assert not (tmp_path / "executed").exists()
