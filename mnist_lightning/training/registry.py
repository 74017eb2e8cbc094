"""The classes that a file may name.

The networks, optimizers, schedules, augmentations and callbacks of these tables are instantiated
from any file. Any other class needs the user's consent; see `docs/decisions/trust.md`.
"""

import inspect
from contextlib import suppress
from types import ModuleType
from typing import Any, get_type_hints

from jsonargparse.typing import NonNegativeFloat, PositiveInt
from lightning.pytorch import callbacks, loggers, profilers, strategies
from torch import optim
from torch.optim import lr_scheduler

from mnist_lightning.data import augmentations, degradations
from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.networks.registry import REGISTERED, by_path
from mnist_lightning.runs.config_schema import Parameter, Schema
from mnist_lightning.training import lr_schedules
from mnist_lightning.training.callbacks.checkpointing import TestedEpoch
from mnist_lightning.training.callbacks.ema import ExponentialMovingAverage
from mnist_lightning.training.callbacks.state_dict_export import WeightsFile
from mnist_lightning.training.callbacks.tensorboard import Level
from mnist_lightning.training.lightning_module import DigitClassifier
from mnist_lightning.training.trainer import RunTrainer

Components = dict[str, type]


def exported(module: ModuleType, names: str) -> Components:
    """Map the paths of classes to the classes: where they are defined, and in this module."""
    classes = {name: getattr(module, name) for name in names.split()}
    return by_path(classes.values()) | {f"{module.__name__}.{n}": classes[n] for n in classes}


NETWORKS: Components = {**REGISTERED}
OPTIMIZERS: Components = exported(
    optim, "ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax LBFGS NAdam RAdam RMSprop Rprop SGD"
)
# Not LambdaLR and MultiplicativeLR: their argument is the name of a function.
SCHEDULES: Components = by_path([lr_schedules.Cosine, lr_schedules.OneCycle]) | exported(
    lr_scheduler,
    "ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR ExponentialLR LinearLR "
    "MultiStepLR OneCycleLR PolynomialLR ReduceLROnPlateau StepLR",
)
AUGMENTATIONS: Components = exported(
    augmentations, "Cutout Deformation Mixup NoDigit Noise StrokeWidth"
) | exported(degradations, "Blur Clutter Lighting LowResolution RandomFilter")
CALLBACKS: Components = by_path([ExponentialMovingAverage, WeightsFile]) | exported(
    callbacks,
    "DeviceStatsMonitor EarlyStopping GradientAccumulationScheduler LearningRateMonitor "
    "ModelSummary RichModelSummary RichProgressBar TQDMProgressBar",
)
# The registered classes of each option.
OPTION_CLASSES = {
    "model.network": NETWORKS,
    "model.optimizer": OPTIMIZERS,
    "model.lr_scheduler": SCHEDULES,
    "data.augment": AUGMENTATIONS,
    "trainer.callbacks": CALLBACKS,
}
# The arguments of these classes choose where to write or send data. A `--config` file may name
# them, the files of an untrusted run may not.
WRITERS: Components = (
    exported(
        callbacks,
        "BackboneFinetuning BatchSizeFinder EMAWeightAveraging LearningRateFinder "
        "ModelCheckpoint ModelPruning OnExceptionCheckpoint SpikeDetection "
        "StochasticWeightAveraging ThroughputMonitor Timer WeightAveraging",
    )
    | exported(loggers, "CSVLogger CometLogger MLFlowLogger TensorBoardLogger WandbLogger")
    | exported(profilers, "AdvancedProfiler PyTorchProfiler SimpleProfiler")
    | exported(strategies, "DDPStrategy SingleDeviceStrategy")
    | exported(optim, "Muon SparseAdam")
)

# The classes that the files of any run may name.
COMPONENTS: Components = NETWORKS | OPTIMIZERS | SCHEDULES | AUGMENTATIONS | CALLBACKS


# The options of a run besides those of its model, its data and its trainer.
RUN_OPTIONS = {
    "log_lines": Parameter(PositiveInt | None, None, "Print the loss every N batches."),
    "auto_resume": Parameter(
        bool, False, "Resume the newest run with the same options, if there is one."
    ),
    "autosave": Parameter(
        NonNegativeFloat | None, None, "Save a checkpoint every N minutes, also within an epoch."
    ),
    "dashboards": Parameter(
        Level, "basic", "What TensorBoard shows besides curves; `full` takes more time."
    ),
    "tested_epoch": Parameter(
        TestedEpoch,
        "best",
        "Keep and test the weights of the best epoch on the validation set, or of the last epoch.",
    ),
    "keep_last": Parameter(
        PositiveInt, 3, "How many of the newest checkpoints to keep, besides the best."
    ),
}


# The parameters that the program supplies, by the class that declares them.
_SUPPLIED = {
    **dict.fromkeys(OPTIMIZERS.values(), "params"),
    **dict.fromkeys(SCHEDULES.values(), "optimizer"),
    optim.Optimizer: "params",
    lr_scheduler.LRScheduler: "optimizer",
}


def parameters(cls: type) -> dict[str, Parameter]:
    """Return the parameters of a constructor, and those that it passes to base classes."""
    collected: dict[str, Parameter] = {}
    for base in cls.__mro__:
        constructor = vars(base).get("__init__")
        if constructor is None:
            continue
        signature = inspect.signature(constructor).parameters
        hints: dict[str, Any] = {}
        with suppress(NameError):  # a name that is imported only for type checking
            hints = get_type_hints(constructor)
        for name, parameter in list(signature.items())[1:]:
            is_named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if is_named and name != _SUPPLIED.get(base):
                default = ... if parameter.default is parameter.empty else parameter.default
                collected.setdefault(name, Parameter(hints.get(name, Any), default))
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in signature.values()):
            break
    return collected


SCHEMA = Schema(
    sections={
        "": {"seed_everything": Parameter(bool | int, 42), **RUN_OPTIONS},
        "model": parameters(DigitClassifier),
        "data": parameters(MNISTDataModule),
        "trainer": parameters(RunTrainer),
    },
    components=COMPONENTS,
    parameters=parameters,
    unbounded=(lr_scheduler.LRScheduler,),
)
# The schema of the user's own files.
USER_SCHEMA = SCHEMA._replace(components=COMPONENTS | WRITERS)
