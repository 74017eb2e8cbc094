"""A progress bar on a terminal, plain lines elsewhere."""

import io
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from mnist_lightning.cli.main import main
from mnist_lightning.training.callbacks.progress import HEADER, ProgressLines

pytestmark = pytest.mark.commands
FIT = ["fit", "--data.dataset", "digits", "--trainer.max_epochs", "3"]


def test_piped_output_has_one_line_per_epoch_and_no_control_codes(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mnist_lightning", *FIT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    assert "\x1b" not in result.stdout
    lines = result.stdout.splitlines()
    header = lines.index(HEADER.splitlines()[1])
    rows = lines[header + 1 : header + 4]
    number = r" +\d\.\d{4} +[\d.]+ %"
    for epoch, row in enumerate(rows, 1):
        assert re.fullmatch(rf" +{epoch}/3{number}{number} +\d+/200 +[\d.]+ s", row)
        assert len(row) == len(lines[header]) <= 80
    for noise in ("GPU available", "litlogger", "many workers", "deprecat", "warning"):
        assert noise not in result.stdout


@pytest.mark.parametrize("columns", ["80", "120"])
def test_a_terminal_shows_a_bar_above_the_same_lines(tmp_path: Path, columns: str) -> None:
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mnist_lightning", *FIT],
        cwd=tmp_path,
        stdout=child,
        stderr=child,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": columns},
    )
    os.close(child)
    output = b""
    while select.select([parent], [], [], 60)[0]:
        try:
            output += os.read(parent, 65536)
        except OSError:  # the process has ended
            break
    os.close(parent)
    assert process.wait() == 0
    text = output.decode()
    assert "━" in text
    assert text.startswith("starting …\r\x1b[K")
    shown = r"loss \d\.\d{3}  accuracy \d+\.\d %  [\d,]+ images/s  remaining \d:\d\d"
    assert re.search(shown, text)
    assert re.search(r" 3/3 +\d\.\d{4}", text)


def test_the_bar_is_shown_only_on_a_terminal_and_if_enabled() -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True)
    assert ProgressLines(terminal).bar
    assert not ProgressLines(terminal, bar=False).bar
    assert not ProgressLines(Console(file=io.StringIO())).bar


def test_divergence_is_reported_once_with_a_fix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    steps = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.init_args.lr"]
    assert main([*FIT, *steps, "1e12"]) == 0
    messages = re.findall("Training diverged: .*", capsys.readouterr().out)
    assert len(messages) == 1
    assert messages[0].endswith("a lower --model.optimizer.init_args.lr.")
    assert main([*FIT, *steps, "1e12", "--trainer.precision", "bf16-true"]) == 0
    assert "init_args.lr or another --trainer.precision than bf16-true" in capsys.readouterr().out
    assert main([*FIT, *steps, "0.1"]) == 0
    assert "diverged" not in capsys.readouterr().out
