"""The classes that a file may name.

The networks, optimizers, schedules, augmentations and callbacks of these tables are instantiated
from any file. Any other class needs the user's consent; see `docs/decisions/trust.md`.
"""

import inspect
from typing import Any, Literal, get_type_hints

from jsonargparse.typing import NonNegativeFloat, PositiveInt
from lightning.pytorch import callbacks, loggers, profilers, strategies
from torch import optim
from torch.optim import lr_scheduler

from mnist_lightning.data import augmentations
from mnist_lightning.data.datamodule import MNISTDataModule
from mnist_lightning.networks.registry import ARCHITECTURES
from mnist_lightning.runs.config_schema import Parameter, Schema
from mnist_lightning.training import lr_schedules
from mnist_lightning.training.callbacks.ema import ExponentialMovingAverage
from mnist_lightning.training.callbacks.state_dict_export import WeightsFile
from mnist_lightning.training.lightning_module import DigitClassifier
from mnist_lightning.training.trainer import RunTrainer

Components = dict[str, type]


def _by_path(*classes: type, public: str | None = None) -> dict[str, type]:
    """Map class paths to classes: where they are defined and, if `public`, exported."""
    named = {f"{cls.__module__}.{cls.__qualname__}": cls for cls in classes}
    return named | ({f"{public}.{cls.__name__}": cls for cls in classes} if public else {})


NETWORKS: Components = _by_path(*ARCHITECTURES.values())
OPTIMIZERS: Components = _by_path(
    optim.ASGD,
    optim.Adadelta,
    optim.Adafactor,
    optim.Adagrad,
    optim.Adam,
    optim.AdamW,
    optim.Adamax,
    optim.LBFGS,
    optim.NAdam,
    optim.RAdam,
    optim.RMSprop,
    optim.Rprop,
    optim.SGD,
    public="torch.optim",
)
# Not LambdaLR and MultiplicativeLR: their argument is the name of a function.
SCHEDULES: Components = _by_path(
    lr_schedules.Cosine,
    lr_schedules.OneCycle,
    lr_scheduler.ConstantLR,
    lr_scheduler.CosineAnnealingLR,
    lr_scheduler.CosineAnnealingWarmRestarts,
    lr_scheduler.CyclicLR,
    lr_scheduler.ExponentialLR,
    lr_scheduler.LinearLR,
    lr_scheduler.MultiStepLR,
    lr_scheduler.OneCycleLR,
    lr_scheduler.PolynomialLR,
    lr_scheduler.ReduceLROnPlateau,
    lr_scheduler.StepLR,
)
AUGMENTATIONS: Components = _by_path(
    augmentations.Cutout,
    augmentations.Deformation,
    augmentations.Mixup,
    augmentations.NoDigit,
    augmentations.Noise,
    augmentations.StrokeWidth,
)
CALLBACKS: Components = _by_path(ExponentialMovingAverage, WeightsFile) | _by_path(
    callbacks.DeviceStatsMonitor,
    callbacks.EarlyStopping,
    callbacks.GradientAccumulationScheduler,
    callbacks.LearningRateMonitor,
    callbacks.ModelSummary,
    callbacks.RichModelSummary,
    callbacks.RichProgressBar,
    callbacks.TQDMProgressBar,
    public="lightning.pytorch.callbacks",
)
# The arguments of these classes choose where to write or send data. A `--config` file may name
# them, the files of an untrusted run may not.
WRITERS: Components = (
    _by_path(
        callbacks.BackboneFinetuning,
        callbacks.BatchSizeFinder,
        callbacks.EMAWeightAveraging,
        callbacks.LearningRateFinder,
        callbacks.ModelCheckpoint,
        callbacks.ModelPruning,
        callbacks.OnExceptionCheckpoint,
        callbacks.SpikeDetection,
        callbacks.StochasticWeightAveraging,
        callbacks.ThroughputMonitor,
        callbacks.Timer,
        callbacks.WeightAveraging,
        public="lightning.pytorch.callbacks",
    )
    | _by_path(
        loggers.CSVLogger,
        loggers.CometLogger,
        loggers.MLFlowLogger,
        loggers.TensorBoardLogger,
        loggers.WandbLogger,
        public="lightning.pytorch.loggers",
    )
    | _by_path(
        profilers.AdvancedProfiler,
        profilers.PyTorchProfiler,
        profilers.SimpleProfiler,
        public="lightning.pytorch.profilers",
    )
    | _by_path(
        strategies.DDPStrategy,
        strategies.SingleDeviceStrategy,
        public="lightning.pytorch.strategies",
    )
    | _by_path(optim.Muon, optim.SparseAdam, public="torch.optim")
)

# The classes that the files of any run may name.
COMPONENTS: Components = NETWORKS | OPTIMIZERS | SCHEDULES | AUGMENTATIONS | CALLBACKS

Level = Literal["none", "basic", "full"]


def parameters(cls: type) -> dict[str, Parameter]:
    """Return the parameters of a constructor, and those that it passes to base classes."""
    collected: dict[str, Parameter] = {}
    for base in cls.__mro__:
        constructor = vars(base).get("__init__")
        if constructor is None:
            continue
        signature = inspect.signature(constructor).parameters
        hints = _hints(constructor)
        for name, parameter in list(signature.items())[1:]:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                default = ... if parameter.default is parameter.empty else parameter.default
                collected.setdefault(name, Parameter(hints.get(name, Any), default))
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in signature.values()):
            break
    return collected


def _hints(constructor: Any) -> dict[str, Any]:
    try:
        return get_type_hints(constructor)
    except NameError:  # a name that is imported only for type checking
        return {}


SCHEMA = Schema(
    sections={
        "": {
            "seed_everything": Parameter(bool | int, 42),
            "log_lines": Parameter(PositiveInt | None, None),
            "auto_resume": Parameter(bool, False),
            "autosave": Parameter(NonNegativeFloat | None, None),
            "dashboards": Parameter(Level, "basic"),
            "keep_last": Parameter(PositiveInt, 3),
        },
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
