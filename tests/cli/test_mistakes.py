"""Each mistake of a user is reported in one line.

mistakes.txt has the exact line of typical mistakes, mistakes_by_key.txt a part of other lines.
"""

from pathlib import Path

import pytest

from tests.conftest import DIGITS, Command

EXACT = Path(__file__).with_name("mistakes.txt")
BY_KEY = Path(__file__).with_name("mistakes_by_key.txt")


def test_a_run_after_the_options_is_rejected(command: Command) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    result = command("test", "--data.eval_batch_size", "9", "0")
    assert result.status == 2
    assert "unexpected argument '0'; give the RUN directly after the command" in result.err


def read_mistakes() -> dict[str, str]:
    """Return commands and their errors; `…` replaces text that depends on package versions."""
    pairs = (block.splitlines() for block in EXACT.read_text().split("\n\n"))
    return {command_line.removeprefix("$ "): message for command_line, message in pairs}


@pytest.mark.parametrize(("command_line", "message"), read_mistakes().items())
def test_a_mistake_is_reported_in_one_line_and_creates_no_run(
    command: Command, tmp_path: Path, command_line: str, message: str
) -> None:
    error = error_line(command, tmp_path, command_line)
    if message.endswith("…"):
        assert error.startswith(message.removesuffix("…"))
    else:
        assert error == message


@pytest.mark.parametrize("line", BY_KEY.read_text().splitlines())
def test_the_error_line_contains_the_cause(command: Command, tmp_path: Path, line: str) -> None:
    command_line, key = line.split(" -> ")
    assert key in error_line(command, tmp_path, command_line)


def error_line(command: Command, tmp_path: Path, command_line: str) -> str:
    """Run a command with a mistake; return its error line."""
    (tmp_path / "key.yaml").write_text("data: {batchsize: 3}\n")
    (tmp_path / "list.yaml").write_text("trainer: [true, 3]\n")
    (tmp_path / "broken.yaml").write_text("data: [\n")
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "small.yaml").write_text("data: {dataset: digits}\n")
    (tmp_path / "space.yaml").write_text("model.optimizer.init_args.lr: {log: [1, 2]}\n")
    (tmp_path / "good_space.yaml").write_text("data.batch_size: {choice: [16, 32]}\n")
    result = command(*command_line.split())
    assert result.status == 2
    assert result.out == ""
    error = result.err.replace(f"{tmp_path}/", "").removesuffix("\n")
    assert "\n" not in error
    assert not (tmp_path / "lightning_logs").exists()
    return error


def test_the_status_of_a_failure_at_run_time_is_1(command: Command, tmp_path: Path) -> None:
    (tmp_path / "lightning_logs").write_text("a file")
    unwritable = command("fit", *DIGITS)
    assert unwritable.status == 1
    assert "cannot save runs in lightning_logs: it is a file" in unwritable.err
    (tmp_path / "lightning_logs").unlink()

    no_run = command("test")
    assert no_run.status == 1
    assert "no trained run in lightning_logs" in no_run.err

    (tmp_path / "torn.ckpt").write_bytes(b"PK\x03\x04 torn")
    truncated = command("test", "torn.ckpt")
    assert truncated.status == 1
    assert "torn.ckpt is damaged or not a checkpoint" in truncated.err


def test_debug_shows_the_traceback(command: Command) -> None:
    result = command("--debug", "test")
    assert result.status == 1
    assert "Traceback" in result.err
