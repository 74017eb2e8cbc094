"""Loggers and networks of other packages: the extra `ecosystem` installs them."""

import sqlite3
from pathlib import Path

import pytest

from tests.conftest import DIGITS, Command

pytestmark = [
    pytest.mark.slow,
    # Of these packages: they do not change what is tested.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SHORT = [*DIGITS, "--trainer.max_epochs", "1", "--dashboards", "none"]
OPTION = "--model.network"
VISION_TRANSFORMER = [
    "timm.models.VisionTransformer",
    *(f"{OPTION}.img_size=28", f"{OPTION}.patch_size=7", f"{OPTION}.in_chans=1"),
    *(f"{OPTION}.num_classes=10", f"{OPTION}.embed_dim=48"),
    *(f"{OPTION}.depth=2", f"{OPTION}.num_heads=3"),
]
RESNET = [
    "timm.create_model",
    *(f"{OPTION}.model_name=resnet10t", f"{OPTION}.in_chans=1", f"{OPTION}.num_classes=10"),
]


def test_mlflow_gets_the_settings_and_the_results(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    logger = ["--trainer.logger", "MLFlowLogger"]
    logger += ["--trainer.logger.tracking_uri", f"sqlite:///{tmp_path}/mlflow.db"]
    result = command("fit", *SHORT, *logger)
    assert result.status == 0, result.err
    assert f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db" in result.out
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        settings = dict(database.execute("select key, value from params"))
        metrics = {key for (key,) in database.execute("select key from latest_metrics")}
        ((status,),) = database.execute("select status from runs").fetchall()
    assert settings["model.optimizer.lr"] == "0.001"
    assert settings["model.network"] == "ClassicCNN"
    assert metrics >= {"train/loss", "val/accuracy", "test/accuracy", "final/val_accuracy"}
    assert status == "FINISHED"


def test_wandb_gets_a_run_for_each_seed(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = ["--trainer.logger", "WandbLogger", "--trainer.logger.offline", "true"]
    result = command("fit", *SHORT, "--seeds", "1..2", *logger)
    assert result.status == 0, result.err
    assert "wandb sync " in result.out
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    for run in runs:
        (log,) = run.glob("*.wandb")
        content = log.read_bytes()
        assert b"model.optimizer.lr" in content and b"final/val_accuracy" in content
    assert wandb.run is None


@pytest.mark.parametrize("network", [RESNET, VISION_TRANSFORMER], ids=lambda words: words[0])
def test_a_network_of_timm_is_trained_resumed_tested_used_and_exported(
    command: Command, tmp_path: Path, network: list[str]
) -> None:
    pytest.importorskip("timm")
    used = [OPTION, network[0]]
    image = str(Path(__file__).parent.parent.parent / "samples" / "seven.png")
    for command_line, shown in (
        (["fit", *SHORT, "--trainer.limit_train_batches", "2", OPTION, *network], "val"),
        (["resume", "--trainer.max_epochs", "2"], "2/2"),
        (["test", "0"], "test accuracy"),
        (["predict", image, "--run", "0", *used], "dark ink"),
        (["export", "0", "--format", "safetensors", *used], "of 297 labels equal"),
        (["export", "0", "--format", "onnx", *used], "of 297 labels equal"),
    ):
        result = command(*command_line)
        assert result.status == 0, result.err
        assert shown in result.out
    model = tmp_path / "lightning_logs/version_0/export/safetensors/model.safetensors"
    read = command("predict", image, "--run", str(model), *used)
    assert read.status == 0 and "dark ink" in read.out


def test_an_argument_that_a_network_does_not_take_is_refused(
    command: Command, tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    wrong = [OPTION, *RESNET, f"{OPTION}.in_chanz=1"]
    result = command("fit", *SHORT, *wrong)
    assert result.status == 2
    assert "unexpected keyword argument 'in_chanz'" in result.err
    assert not (tmp_path / "lightning_logs").exists()
