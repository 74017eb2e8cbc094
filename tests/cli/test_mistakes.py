"""What a user can cause is told in one line."""

from pathlib import Path

import pytest

from tests.conftest import DIGITS, Command


def test_a_run_comes_right_after_its_command(command: Command) -> None:
    command("fit", *DIGITS, "--trainer.max_epochs", "1")
    result = command("test", "--data.eval_batch_size", "9", "0")
    assert result.status == 2
    assert "'0' is not an option; a RUN comes right after the command" in result.err


MISTAKES = {
    "fit --data.batchsize 3": "there is no option --data.batchsize; "
    "did you mean --data.batch_size?",
    "fit --model.batch_size 3": "there is no option --model.batch_size; "
    "did you mean --data.batch_size?",
    "fit --data.batch_size x": "--data.batch_size: x will not do; it takes a whole number",
    "fit --data.batch_size 0": "batch_size is 0; it has to be at least 1",
    "fit --data.dataset mnits": "--data.dataset: mnits will not do; did you mean mnist?",
    "fit --model.network ClasicCNN": "--model.network: ClasicCNN will not do; "
    "did you mean ClassicCNN?",
    "fit --model.network subprocess.Popen": "--model.network: subprocess.Popen will not do;",
    "fit --model.network.dropuot 0.3": "--model.network: ClassicCNN has no argument 'dropuot'",
    "fit --model.optimizer Adamm": "--model.optimizer: Adamm will not do; did you mean Adam?",
    "fit --model.optimizer.rate 1": "--model.optimizer: optimizer has no argument 'rate'",
    "fit --model.lr_scheduler one_cycle": "--model.lr_scheduler: one_cycle will not do; "
    "did you mean OneCycle?",
    "fit --config nope.yaml": "there is no configuration file",
    "fit --config key.yaml": "the configuration has an unknown key data.batchsize; "
    "did you mean data.batch_size?",
    "fit --config broken.yaml": "Problems parsing config: while parsing a flow node",
    "fit --data.dataset digits --trainer.max_epochs 0": "there is nothing to train",
    "fit --data.dataset digits --model.optimizer.lr -1": "--model.optimizer: Invalid learning rate",
    "fit --data.dataset digits --model.network.num_classes 5": "the network gives (1, 5) for "
    "one image of digits, which has 10 classes",
    "fit --data.seed -1": "seed is -1; it has to be at least 0",
    "fit --data.dataset digits --trainer.overfit_batches 2": "--trainer.overfit_batches needs",
    "resume --ckpt_path=": "the RUN is empty",
    "fit best": "'best' is not an option; all options: python -m mnist_lightning fit --help",
    "fit --ckpt_path": "--ckpt_path needs a value",
    "fit --data.dataset digits --data.val_size 1500": "--data.val_size 1500 leaves nothing to "
    "train on: digits has 1,500 training images",
    "fit --data.dataset digits --trainer.max_epochs -5": "--trainer: `max_epochs` must be",
    "fit --data.dataset digits --trainer.devices 2 --trainer.strategy ddp_spawn": "--trainer."
    "strategy ddp_spawn: a run is one process, or several by ddp",
    "resume 7": "no run 7 in lightning_logs; there is none at all",
    "resume nope": "nope is no run: not `last`, not `best`, no folder and no checkpoint file",
    "fit --trainer.max_epoch 1": "there is no option --trainer.max_epoch; "
    "did you mean --trainer.max_epochs?",
    "data mnits": "no data set 'mnits'; did you mean mnist? there are: mnist, fashion_mnist",
    "data --fetch": "say which to fetch: python -m mnist_lightning data mnist --fetch",
    "data --x": "unrecognized arguments: --x",
    "fit --seeds 3..1": "--seeds: 3..1 will not do; it takes 1..5 or 1,2,7",
    "fit --seeds one": "--seeds: one will not do; it takes 1..5 or 1,2,7",
    "fit --seeds": "--seeds needs a value",
    "fit --seeds 1..2 --seed_everything 3": "both --seeds and --seed_everything: give one",
    "fit --seeds 1..2 --ckpt_path x": "--ckpt_path goes on with one run, --seeds makes several",
    "fit --seeds 1..2 --trainer.max_epochs -1": "--seeds needs runs that end",
    "fit --seeds 1..99999999999": "--seeds: 1..99999999999 will not do; 1000 seeds at most",
    "fit --seeds 4294967296": "--seeds: 4294967296 will not do; 1000 seeds at most, below 2**32",
    "fit --seed 1..3": "there is no option --seed; did you mean --seeds?",
    "fit --keep_last 0": "--keep_last: 0 will not do",
    "fit --autosave -1": "--autosave: -1 will not do",
    "verify --data.dataset mnits": "--data.dataset: mnits will not do; did you mean mnist?",
    "fit --auto_resume maybe": "--auto_resume: maybe will not do; it takes true or false",
    "fit --log_lines 0": "--log_lines: 0 will not do",
    "report 5": "no run 5 in lightning_logs; there is none at all",
    "report --data.data_dir": "argument --data.data_dir: expected one argument",
    "report a b": "unrecognized arguments: b",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_is_told_in_one_line_and_leaves_nothing_behind(
    command: Command, tmp_path: Path, typed: str
) -> None:
    (tmp_path / "key.yaml").write_text("data: {batchsize: 3}\n")
    (tmp_path / "broken.yaml").write_text("data: [\n")
    result = command(*typed.split())
    assert result.status == 2
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert result.err.startswith(f"mnist-lightning: error: {MISTAKES[typed]}")
    assert not (tmp_path / "lightning_logs").exists()


def test_a_failure_at_work_ends_with_1(command: Command, tmp_path: Path) -> None:
    (tmp_path / "lightning_logs").write_text("a file")
    unwritable = command("fit", *DIGITS)
    assert unwritable.status == 1
    assert "cannot keep runs in lightning_logs: it is a file" in unwritable.err
    (tmp_path / "lightning_logs").unlink()

    nothing = command("test")
    assert nothing.status == 1
    assert "no run on mnist with a val/accuracy in lightning_logs" in nothing.err

    (tmp_path / "torn.ckpt").write_bytes(b"PK\x03\x04 torn")
    torn = command("test", "torn.ckpt")
    assert torn.status == 1
    assert "torn.ckpt is damaged, or no checkpoint at all" in torn.err


def test_debug_shows_the_traceback(command: Command) -> None:
    result = command("--debug", "test")
    assert result.status == 1
    assert "Traceback" in result.err
