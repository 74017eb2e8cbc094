"""Write `summary.json`: the parts of a run, its state and its results."""

import statistics
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.networks.registry import describe
from mnist_lightning.runs.run_directory import Run
from mnist_lightning.training.callbacks.checkpointing import RunCheckpoints, versions
from mnist_lightning.training.distillation import TEACHER_KEY
from mnist_lightning.training.lightning_module import DigitClassifier, network_of


@dataclass(eq=False)
class RunSummary(Callback):
    """Collects the facts of a run, and writes them to its directory if it has one.

    Args:
        run: the run directory; None writes nothing.
        seed: the run's seed.
        epochs: the number of epochs completed before.
        checkpoints: the callback that knows the best epoch.
        init_from: the run that the initial weights are from, if any.
        exact: whether an exact resume is verified for the parts of the run.
    """

    run: Run | None
    seed: int
    epochs: int = 0
    checkpoints: RunCheckpoints | None = None
    init_from: str | None = None
    exact: bool = True

    def __post_init__(self) -> None:
        self._earlier: dict[str, Any] = self.run.summary() if self.run is not None else {}
        self.facts: dict[str, Any] = {"epochs": self.epochs}
        names = ("epoch_seconds", "init_from")
        self.facts |= {name: self._earlier[name] for name in names if name in self._earlier}
        if self.init_from:
            self.facts["init_from"] = self.init_from
        self._started_at = time.perf_counter()
        self._epoch_started_at: float | None = None
        self._epoch_seconds: list[float] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the facts about the data, the network and the environment."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        data = MNISTDataModule.of(trainer)
        self.facts = {
            "state": "running",
            "started": self._earlier.get("started", now),
            **data.state_dict(),
            "train_size": len(data.train_indices),
            "test_size": len(data.data.test_labels),
            **network_facts(pl_module),
            **teacher_facts(pl_module),
            "seed": self.seed,
            "resume": "exact" if self.exact else "unverified",
            "device": device_name(trainer.strategy.root_device),
            "threads": torch.get_num_threads(),
            "versions": versions(),
            "commit": commit(),
            **self.facts,
        }
        self._write_while_fitting()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the timer; write the summary, as the epoch before is saved now."""
        self._epoch_started_at = time.perf_counter()
        self._write_while_fitting()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last epoch, also a partial one."""
        self.facts["epochs"] = trainer.current_epoch + (not trainer.is_last_batch)
        self._write_while_fitting()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the number of epochs and their median duration, with the validation."""
        self.facts["epochs"] = trainer.current_epoch + 1
        if self._epoch_started_at is not None:  # not resumed within the epoch
            self._epoch_seconds.append(time.perf_counter() - self._epoch_started_at)
            self.facts["epoch_seconds"] = round(statistics.median(self._epoch_seconds), 3)

    def on_exception(self, trainer: Trainer, _: Any, exception: BaseException) -> None:
        """Write how the run ended."""
        interrupted = isinstance(exception, KeyboardInterrupt | SIGTERMException)
        self.facts["state"] = "interrupted" if interrupted else "failed"
        self._write_while_fitting()

    def finish(self, state: str, test: dict[str, float]) -> None:
        """Write the final state and the test results.

        Args:
            state: `finished` or `interrupted`.
            test: the results of the test; empty if there was none.
        """
        self.facts |= {"state": state, **test}
        self._write()

    def _write_while_fitting(self) -> None:
        seconds = time.perf_counter() - self._started_at
        self.facts["fit_seconds"] = round(self._earlier.get("fit_seconds", 0) + seconds, 2)
        self._write()

    def _write(self) -> None:
        best = self.checkpoints.best if self.checkpoints is not None else {}
        self.facts |= {
            "best_epoch": int(best["epoch"]) if best else None,
            "tested_epoch": self.checkpoints.tested_epoch if self.checkpoints else "last",
            "val/accuracy": best.get("val/accuracy"),
            "val/loss": best.get("val/loss"),
        }
        if self.run is not None:
            self.run.write_summary(self.facts)


def network_facts(model: LightningModule) -> dict[str, Any]:
    """Return the class, arguments and size of the network."""
    network = network_of(model)
    count = sum(parameter.numel() for parameter in network.parameters())
    return {"network": describe(network), "parameters": count}


def teacher_facts(model: LightningModule) -> dict[str, Any]:
    """Return where the teacher is from, if there is one."""
    teacher = model.teacher if isinstance(model, DigitClassifier) else None
    return {} if teacher is None else {TEACHER_KEY: teacher.source}


def device_name(device: torch.device) -> str:
    """Return the product name of a GPU, or the type of another device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def commit() -> str | None:
    """Return the commit of this package's checkout, with suffix `-dirty` if changed, or None."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    folder = Path(__file__).parents[3]
    if not (folder / ".git").exists():  # installed, perhaps inside another repository
        return None
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None
