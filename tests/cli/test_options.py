"""The list of all options: equal to the parsers, and used before the imports."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

from mnist_lightning.cli import list_options, options
from mnist_lightning.cli.list_options import COMMON, MEANING_OF_NONE
from mnist_lightning.cli.main import COMMANDS, main
from mnist_lightning.errors import PROGRAM, UserError
from mnist_lightning.training.trainer import RunTrainer

EXPERIMENTS = ["fit", "resume", "validate", "test", "sweep", "verify"]


def saved_list() -> dict[str, object]:
    content: dict[str, object] = json.loads(options.PATH.read_text())
    return content


def test_the_list_equals_the_parsers() -> None:
    made, saved = json.loads(json.dumps(list_options.make_list())), saved_list()
    if made["versions"] != saved["versions"]:
        pytest.skip("the list is of other releases of torch and Lightning")
    assert made == saved, "run `make options`"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_fits_on_a_screen(name: str) -> None:
    lines = (options.requested_help(name, ["--help"]) or "").splitlines()
    assert 3 < len(lines) <= 60
    assert max(len(line) for line in lines if PROGRAM not in line) <= 80


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_help_of_an_experiment_leads_to_all_options(name: str) -> None:
    assert f"{name} --help all" in str(options.requested_help(name, ["--help"]))
    text = str(options.requested_help(name, ["--help", "all"]))
    assert all(f"\n{option} " in text for option in ("--trainer.max_epochs", "--data.folder"))


def test_the_help_of_an_option_lists_its_classes_with_their_arguments() -> None:
    text = str(options.requested_help("fit", ["--help", "model.network"]))
    assert "ClassicCNN(" in text
    assert "torch.nn" not in text
    text = str(options.requested_help("fit", ["--help", "model.optimizer.SGD"]))
    assert "--model.optimizer.momentum X  (default 0)" in text


@pytest.mark.parametrize("words", [["SGD"], ["--model.optimizer.SGD"], ["model.optimizer.SGD"]])
def test_a_topic_may_be_shortened(words: list[str]) -> None:
    full = options.requested_help("fit", ["--model.optimizer.help", "SGD"])
    assert full is not None
    assert options.requested_help("fit", ["--help", *words]) == full


def test_an_unknown_topic_is_refused() -> None:
    with pytest.raises(UserError, match=r"--help max_epoch: .*did you mean trainer\.max_epochs\?"):
        options.requested_help("fit", ["--help", "max_epoch"])


def test_the_defaults_of_the_short_help_are_true() -> None:
    text = str(options.requested_help("fit", ["--help"]))
    assert len([name for name, *_ in COMMON if f"--{name} " in text]) == len(COMMON) >= 20
    trainer = RunTrainer(logger=False, enable_progress_bar=False, accelerator="cpu")
    assert trainer.precision == MEANING_OF_NONE["trainer.precision"]
    assert trainer.limit_train_batches == 1.0  # all


MISTAKES = {
    "--trainer.max_epoch 3": "did you mean --trainer.max_epochs?",
    "--sed 3": "unknown option --sed",
    "--model.optimizer SGD --model.optimizer.momentun 1": "did you mean momentum?",
    "--model.network.dropuot=0.3": "ClassicCNN has no argument 'dropuot'; did you mean dropout?",
    "--data.augment+ Noise --data.augment.levle 1": "Noise has no argument 'levle'",
}


@pytest.mark.parametrize("command", ["fit", "verify", "sweep"])
@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistyped_option_is_found_in_the_list(command: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        options.check_names(command, words.split())
    assert MISTAKES[words] in str(refused.value)


VALID = [
    "--trainer.max_epochs=3 --model.optimizer=SGD --model.optimizer.momentum 0.9 -c a.yaml",
    "--config a.yaml --model.network.width 3",
    "--model.network my.Net --model.network.anything 3",
    "--data.augment+ Deformation --data.augment.init_args.degrees 3",
    "--trainer.callbacks EarlyStopping --trainer.callbacks.monitor val/loss",
    "--model.network.class_path TinyCNN --trainer.logger+ CSVLogger --trainer.logger.save_dir x",
    "--model model.yaml --data={} --print_config",
    "--model big.yaml --model.optimizer.nesterov true",
    '--model={"network":{"class_path":"TinyCNN"}} --model.network.width 8',
    "--model.network mynets.TinyCNN --model.network.depth 4",
    "--model.optimizer mynets.Adam --model.optimizer.boost 2",
    "--model.optimizer torch.optim.SGD --model.optimizer.momentum 0.9",
    "--trainer.callbacks RichModelSummary --trainer.callbacks.dict_kwargs.header_style bold",
]


@pytest.mark.parametrize("words", ["--model.network.width 4", "--model.optimizer.momentum 0.9"])
def test_the_classes_of_a_run_are_not_the_default_ones(words: str) -> None:
    options.check_names("resume", ["0", *words.split()])


def test_a_run_after_help_is_no_topic() -> None:
    assert options.requested_help("test", ["--help", "best"]) == options.requested_help(
        "test", ["--help"]
    )
    text = options.requested_help("fit", ["--help", "--config", "a.yaml"])
    assert text == options.requested_help("fit", ["--help"])


@pytest.mark.parametrize("words", VALID)
def test_valid_options_pass(words: str) -> None:
    options.check_names("fit", words.split())


def test_options_of_other_releases_are_left_to_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "version", lambda name: version(name) + ".other")
    options.check_names("fit", ["--trainer.new_option", "3"])
    with pytest.raises(UserError, match=r"did you mean --data\.batch_size"):
        options.check_names("fit", ["--data.batchsize", "3"])


@pytest.mark.commands
def test_a_mistyped_option_and_a_help_import_neither_torch_nor_lightning() -> None:
    script = (
        "import sys; from mnist_lightning.cli.main import main\n"
        "print(main(['fit', '--trainer.max_epoch', '3']), main(['fit', '--help', 'all']))\n"
        "sys.exit(sum(name in sys.modules for name in ('torch', 'lightning', 'numpy')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(b"2 0\n")


def test_lightnings_own_help_of_a_foreign_class_is_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--trainer.strategy.help", "DDPStrategy"])
    assert "find_unused_parameters" in capsys.readouterr().out
