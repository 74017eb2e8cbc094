"""Check that a run can be trained, before it has a directory."""

import copy
import math
import os
import shutil
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor
from torch import nn
from torch.optim import LBFGS, Optimizer

from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.errors import UserError
from mnist_lightning.networks.inspection import probe_logits
from mnist_lightning.networks.registry import (
    MAX_CLASSES,
    NETWORK_ERRORS,
    REGISTERED,
    build,
    describe,
    factory_of,
    path_of,
)
from mnist_lightning.runs.checkpoint import MAX_UNSIGNED_BYTES
from mnist_lightning.runs.config import Config
from mnist_lightning.runs.signature import key_path, signing_key
from mnist_lightning.training.compatibility import take_zero_step
from mnist_lightning.training.lightning_module import DigitClassifier
from mnist_lightning.training.lr_schedules import UNBOUNDED_SCHEDULE

MAX_KEPT = 1_000  # checkpoints
_METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
_PACKAGES = ("lightning.", "mnist_lightning.")


def preflight_check(
    model: DigitClassifier, data: MNISTDataModule, trainer: Trainer, config: Config, root: Path
) -> None:
    """Check that a run can be trained, before it has a directory.

    Args:
        model: the network with its loss and its optimizer.
        data: the data, loaded.
        trainer: created with the options of the configuration.
        config: the complete configuration.
        root: the folder of the runs.

    Raises:
        UserError: the options leave nothing to train, or the network does not fit the data.
    """
    options = config["trainer"]
    for name in ("max_epochs", "max_steps", "limit_train_batches"):
        if getattr(trainer, name) == 0:
            _reject(f"Nothing to train: --trainer.{name} is 0; give at least 1.")
    unbounded = trainer.max_steps == -1 and trainer.max_epochs in (None, -1)
    if unbounded and model.schedule_needs_run_length:
        _reject(UNBOUNDED_SCHEDULE)
    if config["keep_last"] > MAX_KEPT:
        _reject(f"--keep_last {config['keep_last']} exceeds {MAX_KEPT:,}: give a smaller number")
    _check_network(model.network)
    _check_data(model, data)
    _check_limits(data, trainer, options)
    _check_early_stopping(model, data, trainer, options)
    _check_optimizer(model, trainer)
    if config["model"]["compile"] and trainer.strategy.root_device.type == "cpu":
        _check_compiler()
    if not options["fast_dev_run"] and options["enable_checkpointing"] is not False:
        _check_disk(model, config["keep_last"], root)


def _reject(problem: str) -> NoReturn:
    raise UserError(problem, status=2) from None


def _check_network(network: nn.Module) -> None:
    """Check that a network of another package can be built again, to test and to use it."""
    factory, description = factory_of(network), describe(network)
    if path_of(factory) in REGISTERED:
        return
    if description["init_args"] is None:
        _reject(
            f"--model.network {description['class_path']}: an argument is a class or an object, "
            "so that the network could not be built again for a test. Name a function of your own "
            "that returns the network and takes only numbers and texts."
        )
    with torch.random.fork_rng(devices=[]):  # training uses the same random numbers
        copy = build(description, [factory])
    shapes, expected = (
        {name: weight.shape for name, weight in each.state_dict().items()}
        for each in (copy, network)
    )
    if shapes != expected:
        _reject(
            f"--model.network {description['class_path']} does not always have the same layers: "
            "they must depend only on its arguments."
        )


def _check_data(model: DigitClassifier, data: MNISTDataModule) -> None:
    """Check that there are images to train on, and that the network fits them."""
    name, test_labels = data.data.name, data.data.test_labels
    if data.own_train_size == 0:
        fix = "Add images, or give --data.test_share 0."
        if name == "idx":
            fix = "Add images to train-images-idx3-ubyte, and their labels."
        _reject(f"{name} has no training images: all {len(test_labels)} are in the test set. {fix}")
    classes = 1 + int(torch.cat([data.data.train_labels, test_labels]).max())
    try:
        shape = tuple(probe_logits(model.network).shape)
    except NETWORK_ERRORS as error:
        _reject(f"The network fails on (B, 1, 28, 28) images: {' '.join(str(error).split())}")
    if len(shape) != 2 or shape[1] < classes:
        _reject(
            f"Invalid network output {shape} for one image: expected (1, {classes}) for the labels "
            f"of {name}. Give --model.network.num_classes {classes}."
        )
    taught = 0 if model.teacher is None else probe_logits(model.teacher).shape[1]
    if taught > shape[1]:
        _reject(
            f"The teacher has {taught} classes, the network only {shape[1]}. "
            f"Give --model.network.num_classes {taught}."
        )
    if shape[1] > MAX_CLASSES:
        _reject(f"The network has {shape[1]} classes: expected at most {MAX_CLASSES}.")


def _check_limits(data: MNISTDataModule, trainer: Trainer, options: dict[str, Any]) -> None:
    """Check the limits that Lightning would reject after the run has a directory."""
    sizes = {
        "train": data.train_batches,
        "val": -(-len(data.val_indices) // data.eval_batch_size),
        "test": -(-len(data.data.test_labels) // data.eval_batch_size),
    }
    for stage, batches in sizes.items():
        name = f"limit_{stage}_batches"
        limit = getattr(trainer, name)
        if options["overfit_batches"] and stage != "test":  # it replaces the limit
            name = "overfit_batches"
        if isinstance(limit, float) and batches > 0 and limit > 0 and batches * limit < 1:
            _reject(
                f"--trainer.{name} {limit} of {batches} batches is below 1 batch: "
                f"give at least {math.ceil(100 / batches) / 100}, or a number of batches (1, 2, …)."
            )
    every = options["check_val_every_n_epoch"]
    if every is not None and every < 1:
        _reject(
            f"Invalid --trainer.check_val_every_n_epoch {every}: expected at least 1. To disable "
            "validation, give --trainer.limit_val_batches 0."
        )
    limit, interval = trainer.limit_train_batches, options["val_check_interval"]
    batches = min(sizes["train"], limit) if isinstance(limit, int) else sizes["train"]
    batches = int(batches * limit) if isinstance(limit, float) else batches
    within = every is not None and options["limit_val_batches"] != 0
    if isinstance(interval, int) and interval > batches and within:
        _reject(
            f"--trainer.val_check_interval {interval} exceeds the {batches} batches of an epoch. "
            "To count batches across epochs, give --trainer.check_val_every_n_epoch null."
        )


def _check_early_stopping(
    model: DigitClassifier, data: MNISTDataModule, trainer: Trainer, options: dict[str, Any]
) -> None:
    """Check that the metric of each EarlyStopping exists when it is first read."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined] # set by Trainer
    loggers = (callback for callback in callbacks if not isinstance(callback, EarlyStopping))
    may_log = type(model) is not DigitClassifier or any(
        isinstance(each, LearningRateMonitor) or not type(each).__module__.startswith(_PACKAGES)
        for each in loggers
    )
    validates = len(data.val_indices) > 0 and options["limit_val_batches"] != 0
    interval, every = options["val_check_interval"], options["check_val_every_n_epoch"]
    at_epoch_ends = interval in (None, 1.0) and not isinstance(interval, int) and every == 1
    for callback in trainer.early_stopping_callbacks:
        assert isinstance(callback, EarlyStopping)
        if not callback.strict:
            continue
        option = callback._check_on_train_epoch_end
        reads_at_epoch_end = at_epoch_ends if option is None else option
        stage = callback.monitor.partition("/")[0]
        problem = ""
        if callback.monitor not in _METRICS and (stage in ("train", "val") or not may_log):
            problem = f"Existing metrics: {', '.join(_METRICS)}."
        elif stage == "val" and not validates:
            problem = "The run has no validation: monitor train/loss."
        elif stage == "val" and reads_at_epoch_end and every != 1:
            problem = "Not every epoch is validated: remove check_on_train_epoch_end."
        elif stage == "train" and not reads_at_epoch_end:
            problem = "This metric exists only after an epoch: set check_on_train_epoch_end true."
        if problem:
            _reject(f"--trainer.callbacks EarlyStopping: no {callback.monitor}. {problem}")


def _check_optimizer(model: DigitClassifier, trainer: Trainer) -> None:
    network = copy.deepcopy(model.network)
    optimizer = model.optimizer_factory(network.parameters())
    check_loss_scaling(optimizer, trainer)
    try:
        take_zero_step(network, optimizer)
    except RuntimeError as error:
        reason, remedy = " ".join(str(error).split()), "Use AdamW or SGD."
        if "view size" in reason:  # LBFGS flattens gradients, which channels-last memory prevents
            reason, remedy = "it needs contiguous weights", "Set --model.channels_last false."
        _reject(f"--model.optimizer {type(optimizer).__name__}: {reason}. {remedy}")


def check_loss_scaling(optimizer: Optimizer, trainer: Trainer) -> None:
    """Check that the optimizer supports loss scaling, if the trainer uses it (on a GPU).

    Raises:
        UserError: it does not; Lightning would fail at the first step.
    """
    scales = getattr(trainer.precision_plugin, "scaler", None) is not None
    if scales and isinstance(optimizer, LBFGS):
        _reject(
            "--model.optimizer LBFGS does not support the loss scaling of --trainer.precision "
            "16-mixed: use --trainer.precision bf16-mixed."
        )


def _check_compiler() -> None:
    compiler = os.environ.get("CXX")
    if not any(map(shutil.which, [compiler] if compiler else ["g++", "clang++"])):
        raise UserError(
            "--model.compile needs a C++ compiler. Not found: "
            f"{compiler or 'g++, clang++'}. Install one, or remove --model.compile."
        )


def _check_disk(model: DigitClassifier, keep_last: int, root: Path) -> None:
    """Check that the checkpoints fit on the disk."""
    # Each checkpoint has the weights and two optimizer values per weight, and the teacher.
    # There are the best one, the last ones and the one that is being written. The logs need a
    # little more.
    weights, taught = (
        sum(p.numel() * p.element_size() for p in module.parameters()) if module else 0
        for module in (model.network, model.teacher)
    )
    size = 3 * weights + taught
    if size > MAX_UNSIGNED_BYTES and signing_key(create=True) is None:
        raise UserError(
            f"A checkpoint may exceed {MAX_UNSIGNED_BYTES / 10**6:.0f} MB, the limit without a "
            f"signature, and no key can be stored as {key_path()}: make that path writable."
        )
    needed = size * (keep_last + 2) + 2**20
    place = next(path for path in (root.resolve(), *root.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise UserError(
            f"{root} has {free / 2**20:.0f} MB free, this run may need {needed / 2**20:.0f} MB. "
            "Free some space, or choose another folder: --trainer.default_root_dir DIR."
        )
