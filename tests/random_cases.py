"""Random configurations of tiny runs, with all options that affect training."""

import json
import random
from typing import Any, NamedTuple

Options = list[str]


class Case(NamedTuple):
    """A configuration and its length before and after it is extended."""

    options: Options
    length: Options
    extended: Options


NETWORKS = [
    ["MultilayerPerceptron"],
    ["MultilayerPerceptron"],
    ["MultilayerPerceptron"],
    ["TinyCNN", "width=4"],
    ["ClassicCNN"],
    ["BatchNormCNN", "dropout=0.3"],
]
OPTIMIZERS = [
    ["Adam", "lr=0.002"],
    ["Adam", "lr=0.002", "amsgrad=true"],
    ["AdamW", "lr=0.002"],
    ["SGD", "lr=0.05"],
    ["SGD", "lr=0.05", "momentum=0.9", "nesterov=true"],
    ["Adadelta", "lr=0.5"],
    ["Adafactor", "lr=0.02"],
    ["Adagrad", "lr=0.01"],
    ["Adamax", "lr=0.002"],
    ["ASGD", "lr=0.02", "t0=3"],
    ["LBFGS", "lr=0.2", "max_iter=2"],
    ["NAdam", "lr=0.002"],
    ["RAdam", "lr=0.002"],
    ["RMSprop", "lr=0.001", "momentum=0.5"],
    ["Rprop", "lr=0.0005"],
]
SCHEDULES: list[Options] = [
    ["ConstantLR", "factor=0.5", "total_iters=3"],
    ["CosineAnnealingLR", "T_max=7"],
    ["CosineAnnealingWarmRestarts", "T_0=2"],
    ["CyclicLR", "base_lr=0.0005", "max_lr=0.002", "step_size_up=4", "cycle_momentum=false"],
    ["ExponentialLR", "gamma=0.9"],
    ["LinearLR", "total_iters=5"],
    ["MultiStepLR", "milestones=[1,3,8]"],
    ["PolynomialLR", "total_iters=9"],
    ["StepLR", "step_size=2", "gamma=0.5"],
    [
        "torch.optim.lr_scheduler.OneCycleLR",
        "max_lr=0.002",
        "total_steps=500",
        "cycle_momentum=false",
    ],
    ["ReduceLROnPlateau", "patience=0"],
    ["ReduceLROnPlateau", "patience=0", "mode=max"],
    ["OneCycle", "cycle_momentum=false"],
    ["Cosine", "warmup=0.3"],
]
AUGMENTATIONS = [
    ["Deformation"],
    ["Deformation", "warp=1.0"],
    ["StrokeWidth"],
    ["Noise"],
    ["NoDigit"],
    ["Cutout"],
    ["Mixup"],
    ["Lighting", "share=0.5"],
    ["Clutter", "count=2"],
    ["Blur"],
    ["RandomFilter"],
    ["LowResolution"],
]
CALLBACKS: list[Options] = [
    ["ExponentialMovingAverage", "decay=0.8"],
    ["ExponentialMovingAverage", "decay=0.99"],
    ["EarlyStopping", "monitor=val/loss", "patience=1"],
    [
        "EarlyStopping",
        "monitor=train/loss",
        "patience=1",
        "min_delta=0.2",
        "check_on_train_epoch_end=true",
    ],
    ["LearningRateMonitor"],
    ["LearningRateMonitor", "logging_interval=step", "log_momentum=true"],
    ["ModelCheckpoint"],
    ["ModelCheckpoint", "monitor=val/loss", "save_top_k=2"],
    ["ModelCheckpoint", "every_n_train_steps=3", "save_top_k=-1"],
    ["DeviceStatsMonitor"],
    ["GradientAccumulationScheduler", "scheduling={1: 2, 2: 3}"],
    ["ModelSummary"],
    ["RichModelSummary"],
    ["WeightsFile"],
]
# Options that `fit` must reject before training.
REFUSED_SHARE = 0.03
REFUSED: list[Options] = [
    ["--model.optimizer=Muon", "--model.optimizer.lr=0.01"],
    ["--model.optimizer=SparseAdam", "--model.optimizer.lr=0.01"],
    ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.01"],
    ["--trainer.callbacks+=ModelPruning", "--trainer.callbacks.pruning_fn=l1_unstructured"],
    ["--trainer.callbacks+=BatchSizeFinder"],
    ["--trainer.callbacks+=LearningRateFinder"],
    ["--trainer.callbacks+=BackboneFinetuning"],
    ["--trainer.callbacks+=SpikeDetection"],
    ["--trainer.callbacks+=OnExceptionCheckpoint", "--trainer.callbacks.dirpath=."],
    ["--trainer.callbacks+=RichProgressBar"],
    ["--trainer.callbacks+=TQDMProgressBar"],
    ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.save_last=true"],
]


def draw_case(rng: random.Random) -> Case:
    """Draw a configuration of a tiny run; rare combinations are invalid."""
    options: Options = ["--data.dataset", "digits", "--seed_everything", str(rng.randrange(99))]
    batches = rng.randint(3, 9)
    options += ["--trainer.limit_train_batches", rng.choice([str(batches), "0.5", "1.0"])]
    options += _component_options("--model.network", rng.choice(NETWORKS))
    options += _component_options("--model.optimizer", rng.choice(OPTIMIZERS))
    if rng.random() < 0.5:
        schedule = rng.choice(SCHEDULES)
        options += _component_options("--model.lr_scheduler", schedule)
        options += ["--model.lr_scheduler_interval", rng.choice(["epoch", "step"])]
    options += _augmentations(rng) + _callbacks(rng) + _trainer(rng)
    if not any("GradientAccumulationScheduler" in option for option in options):
        options += _maybe(rng, 0.25, "--trainer.accumulate_grad_batches", ["2", "3", "4"])
    if rng.random() < REFUSED_SHARE:
        options += rng.choice(REFUSED)
    options += _maybe(rng, 0.2, "--model.label_smoothing", ["0.1"])
    lbfgs = "--model.optimizer=LBFGS" in options  # LBFGS needs contiguous weights
    options += _maybe(rng, 1.0 if lbfgs else 0.2, "--model.channels_last", ["false"])
    options += _maybe(rng, 0.1, "--data.num_workers", ["2"])
    options += _maybe(rng, 0.15, "--data.val_size", ["0", "50"])
    options += _maybe(rng, 0.3, "--autosave", ["0", "0.001"])
    options += _maybe(rng, 0.4, "--keep_last", ["1", "2", "4", "5"])
    options += _maybe(rng, 0.2, "--tested_epoch", ["last"])
    options += _maybe(rng, 0.6, "--dashboards", ["none", "none", "basic", "full"])
    if "--trainer.callbacks.monitor=val/loss" in options:
        options = _with_validation(options)
    length, extended = _lengths(rng)
    if not {"--model.lr_scheduler=OneCycle", "--model.lr_scheduler=Cosine"}.isdisjoint(options):
        extended = []  # these schedules depend on the length of the run
    return Case(options, length, extended)


def _with_validation(options: Options) -> Options:
    """Enable validation: without it, an EarlyStopping with a validation metric is rejected."""
    pairs = zip(["", *options], options, strict=False)
    replacements = {("--data.val_size", "0"): "50", ("--trainer.limit_val_batches", "0"): "1"}
    return [replacements.get(pair, pair[1]) for pair in pairs]


def _component_options(option: str, component: Options, append: str = "") -> Options:
    name, *arguments = component
    return [f"{option}{append}={name}", *(f"{option}.{argument}" for argument in arguments)]


def _maybe(rng: random.Random, probability: float, option: str, values: list[str]) -> Options:
    return [option, rng.choice(values)] if rng.random() < probability else []


def _augmentations(rng: random.Random) -> Options:
    if rng.random() > 0.35:
        return []
    chosen = [_class_config(each) for each in rng.sample(AUGMENTATIONS, rng.randint(1, 2))]
    return ["--data.augment", json.dumps(chosen)]


def _class_config(component: Options) -> dict[str, Any]:
    name, *arguments = component
    pairs = (argument.split("=", 1) for argument in arguments)
    return {"class_path": name, "init_args": {k: json.loads(v) for k, v in pairs}}


def _callbacks(rng: random.Random) -> Options:
    if rng.random() > 0.55:
        return []
    options: Options = []
    chosen = {each[0]: each for each in rng.sample(CALLBACKS, rng.randint(1, 3))}
    for each in chosen.values():
        options += _component_options("--trainer.callbacks", each, append="+")
    return options


def _trainer(rng: random.Random) -> Options:
    precisions = ["64-true", "16-true", "bf16-true", "bf16-mixed", "16-mixed"]
    options = _maybe(rng, 0.35, "--trainer.precision", precisions)
    if rng.random() < 0.25:
        options += ["--trainer.gradient_clip_val", "0.5"]
        options += _maybe(rng, 0.5, "--trainer.gradient_clip_algorithm", ["value", "norm"])
    draw = rng.random()
    if draw < 0.15:
        options += ["--trainer.check_val_every_n_epoch", "null"]
        options += ["--trainer.val_check_interval", str(rng.randint(2, 20))]
    elif draw < 0.4:
        options += ["--trainer.val_check_interval", rng.choice(["2", "3", "0.5", "0.34"])]
    elif draw < 0.55:
        options += ["--trainer.check_val_every_n_epoch", "2"]
    options += _maybe(rng, 0.15, "--trainer.limit_val_batches", ["0", "1", "1.0"])
    options += _maybe(rng, 0.15, "--trainer.limit_test_batches", ["0", "1", "0.5"])
    options += _maybe(rng, 0.6, "--trainer.log_every_n_steps", ["1", "2", "5"])
    options += _maybe(rng, 0.1, "--trainer.min_epochs", ["2"])
    options += _maybe(rng, 0.1, "--trainer.min_steps", ["7"])
    return options


def _lengths(rng: random.Random) -> tuple[Options, Options]:
    """Draw the length of the run, and the length to extend it to, if any."""
    epochs, steps = rng.randint(2, 4), rng.randint(2, 30)
    by_steps = rng.random() < 0.5
    length = (
        ["--trainer.max_steps", str(steps)] if by_steps else ["--trainer.max_epochs", str(epochs)]
    )
    if by_steps and rng.random() < 0.3:
        length += ["--trainer.max_epochs", str(epochs)]
    if len(length) > 2 or rng.random() > 0.25:
        return length, []
    more = steps + rng.randint(1, 15) if by_steps else epochs + 1
    return length, [length[0], str(more)]
