"""The classes that a run may be made of and still be resumed exactly; each is listed.

A stand-in with the names of the registry on branch main, which replaces it.
"""

from lightning.pytorch import callbacks
from torch import optim
from torch.optim import lr_scheduler

from mnist_lightning import schedules
from mnist_lightning.callbacks.averaging import ExponentialMovingAverage
from mnist_lightning.callbacks.weights import WeightsFile
from mnist_lightning.data import augment
from mnist_lightning.networks import ARCHITECTURES

Components = dict[str, type]


def _by_path(*classes: type, public: str | None = None) -> Components:
    """Name classes by where they are defined and, if `public`, where they are exported."""
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
SCHEDULES: Components = _by_path(
    schedules.Cosine,
    schedules.OneCycle,
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
    augment.Cutout,
    augment.Deformation,
    augment.Mixup,
    augment.NoDigit,
    augment.Noise,
    augment.StrokeWidth,
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
