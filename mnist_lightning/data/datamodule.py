"""MNIST and similar data sets as a LightningDataModule."""

import warnings
from pathlib import Path
from typing import Any, Literal, Self

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from mnist_lightning import distributed
from mnist_lightning.data.augmentations import Augmentation
from mnist_lightning.data.datasets import SOURCES, DigitData
from mnist_lightning.data.image_folder import load_folder
from mnist_lightning.data.loader import BatchDataset, BatchLoader
from mnist_lightning.data.mnist_download import FetchError
from mnist_lightning.data.splits import Division, divide, joined, usual_val_size
from mnist_lightning.errors import PROGRAM, UserError

SourceName = Literal[
    "mnist", "fashion_mnist", "kmnist", "qmnist", "emnist_digits", "digits", "strokes"
]
DatasetName = Literal["auto", "folder"] | SourceName


class FallbackWarning(UserWarning):
    """MNIST could not be had, and the embedded digits serve in its place."""


class SkippedWarning(UserWarning):
    """Files in a folder of pictures are no pictures of a digit."""


class MNISTDataModule(LightningDataModule):
    """Digits in memory: training, validation and test batches, normalized.

    The test set is the official one and is only ever tested; validation is carved out of the
    training images by a generator of its own, a function of `split_seed` alone.

    Args:
        dataset: `auto` is MNIST where it is on disk or can be downloaded, else the embedded
            digits, with a warning; `folder` is your own pictures; any other name is strict.
        data_dir: a torchvision root: MNIST's files are in `data_dir/MNIST/raw`, raw or .gz.
        batch_size: training samples in a step, over all processes.
        eval_batch_size: samples in a batch of validation and test; changes no figure. 200
            stay within a processor's caches; 1,000 of DeepCNN do not, and take twice the time.
        val_size: training images held out for validation. None: 5,000 of MNIST's 60,000, for
            other data sets what suits their size; 0: train on all of them.
        split_seed: which images those are.
        seed: orders the training samples, anew each epoch. None: the seed of torch's generator,
            which is what `seed_everything` set.
        num_workers: processes that make training batches; changes no batch.
        pin_memory: hand training batches over in page-locked memory; changes no batch.
        augment: changes the training images at random, anew each epoch; several one after another.
        folder: your own pictures, in a folder for each label: `folder/3/anything.png`.
        test_share: of your own pictures, how many are for testing: 0 to 1.
        extra: further data sets to train and validate on; the test stays as it is.
        extra_share: of an epoch's images, how many are the further data sets': every image is
            seen, and as many of them repeatedly as it takes.
    """

    def __init__(
        self,
        dataset: DatasetName = "auto",
        data_dir: str = "data",
        batch_size: int = 100,
        eval_batch_size: int = 200,
        val_size: int | None = None,
        split_seed: int = 0,
        seed: int | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        augment: Augmentation | list[Augmentation] | None = None,
        folder: str | None = None,
        test_share: float = 0.15,
        extra: SourceName | list[SourceName] | None = None,
        extra_share: float = 0.1,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.data_dir = Path(data_dir).expanduser()
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.val_size = val_size
        self.split_seed = split_seed
        self.seed = seed
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.augment = [augment] if isinstance(augment, Augmentation) else augment or []
        self.folder = None if folder is None else Path(folder).expanduser()
        self.test_share = test_share
        self.extra: list[SourceName] = [extra] if isinstance(extra, str) else extra or []
        self.extra_share = extra_share
        self.fallback_reason: str | None = None
        self.skipped: str | None = None
        self._absence: str | None = None
        self._loaded: dict[str, DigitData] = {}
        self._data: DigitData | None = None
        self._train_loader: BatchLoader | None = None
        self._refuse_nonsense()

    def _refuse_nonsense(self) -> None:
        known = ["auto", "folder", *SOURCES]
        if self.dataset not in known:
            raise ValueError(f"no data set {self.dataset!r}; there are: {', '.join(known)}")
        if (self.dataset == "folder") != (self.folder is not None):
            raise ValueError("own pictures need --data.dataset folder and --data.folder DIR")
        if not 0 <= self.test_share <= 1:
            raise ValueError(f"test_share is {self.test_share}; it has to be from 0 to 1")
        if not 0 < self.extra_share < 1:
            raise ValueError(f"extra_share is {self.extra_share}; it has to be between 0 and 1")
        least = {"batch_size": 1, "eval_batch_size": 1, "val_size": 0, "num_workers": 0, "seed": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ValueError(f"{name} is {value}; it has to be at least {bound}")

    @classmethod
    def of(cls, trainer: Trainer) -> Self:
        """The data module that a run's trainer was given."""
        data = trainer.datamodule  # type: ignore[attr-defined] # set by Trainer.fit
        assert isinstance(data, cls)
        return data

    def prepare_data(self) -> None:
        """Download what is missing; on one process only, and once.

        Raises:
            UserError: the data set is damaged, or is strict and cannot be had.
        """
        if self._data is not None:
            return
        for name in (self.dataset, *self.extra):
            if name != "folder":
                self._prepare(name)

    def _prepare(self, name: str) -> None:
        source = SOURCES["mnist" if name == "auto" else name]
        try:
            self._loaded.setdefault(name, source.load(self.data_dir))
        except FileNotFoundError as missing:
            try:
                source.fetch(self.data_dir)
            except FetchError as error:
                self._absence = f"{missing}; {error}"
                if name != "auto":
                    raise UserError(f"{self._absence}; {_remedy(name)}") from None

    def setup(self, stage: str | None = None) -> None:
        """Load and split the data; once, whatever the stage."""
        if self._data is not None:
            return
        own = self._divided(self._load(self.dataset), self.val_size)
        self.own_train_size = len(own.train)  # without those of further data sets
        self._checksums: dict[str, Any] = {"checksum": own.data.checksum}
        usual = 0 if self.val_size == 0 else None
        extra = [self._load(name) for name in self.extra if name != own.data.name]
        if extra:
            self._checksums["extra_checksums"] = {data.name: data.checksum for data in extra}
            others = [self._divided(data, usual) for data in extra]
            own = joined(own, others, self.extra_share)
        self._data, self.train_indices, self.val_indices = own

    def _divided(self, data: DigitData, val_size: int | None) -> Division:
        count = len(data.train_labels)
        val_size = usual_val_size(data) if val_size is None else val_size
        if val_size >= count > 0:
            raise UserError(
                f"--data.val_size {val_size} leaves nothing to train on: "
                f"{data.name} has {count:,} training images",
                status=2,
            )
        return divide(data, val_size, self.split_seed)

    def _load(self, name: str) -> DigitData:
        if self.folder is not None and name == "folder":
            data, self.skipped = load_folder(self.folder, self.test_share)
            if self.skipped is not None:
                warnings.warn(self.skipped, SkippedWarning, stacklevel=3)
            return data
        if name in self._loaded:
            return self._loaded.pop(name)
        try:
            return SOURCES["mnist" if name == "auto" else name].load(self.data_dir)
        except FileNotFoundError as missing:
            if name != "auto":
                raise UserError(f"{missing}; {_remedy(name)}") from None
            self.fallback_reason = f"{self._absence or missing}; {_remedy(name)}"
            warnings.warn(
                f"this is not MNIST but the embedded digits: {self.fallback_reason}",
                FallbackWarning,
                stacklevel=3,
            )
            return SOURCES["digits"].load(self.data_dir)

    @property
    def data(self) -> DigitData:
        """The data set in memory.

        Raises:
            RuntimeError: `setup` has not been called.
        """
        if self._data is None:
            raise RuntimeError("call prepare_data() and setup() first; a Trainer does so by itself")
        return self._data

    @property
    def title(self) -> str:
        """What the data is to a reader: its name, and that of what is trained on beside it."""
        own = self.data.name
        return " and ".join([own, *(name for name in self.extra if name != own)])

    @property
    def train_batches(self) -> int:
        """How many batches an epoch has."""
        return -(-len(self.train_indices) // self.batch_size)

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches of normalized images (B, 1, 28, 28) and labels (B,)."""
        pixels = self.data.train_images[self.train_indices]
        labels = self.data.train_labels[self.train_indices]
        if self.num_workers == 0:
            device = self._device(pixels.numel())
            pixels, labels = pixels.to(device), labels.to(device)
        seed = distributed.run_on_rank_zero(torch.initial_seed) if self.seed is None else self.seed
        batches = BatchDataset(pixels, labels, self.batch_size, seed, self.augment)
        pin = self.pin_memory and torch.cuda.is_available() and pixels.device.type == "cpu"
        self._train_loader = BatchLoader(batches, self.num_workers, pin)
        return self._train_loader

    def teardown(self, stage: str) -> None:
        """End the workers."""
        if self._train_loader is not None:
            self._train_loader.close()
            self._train_loader = None

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Batches of the images held out, in order; none where `val_size` is 0."""
        if len(self.val_indices) == 0:
            return []
        return self._evaluation(
            self.data.train_images[self.val_indices], self.data.train_labels[self.val_indices]
        )

    def test_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Batches of every test image, in order; none where there is none."""
        if len(self.data.test_labels) == 0:
            return []
        return self._evaluation(self.data.test_images, self.data.test_labels)

    def _evaluation(self, pixels: torch.Tensor, labels: torch.Tensor) -> BatchLoader:
        device = self._device(pixels.numel())
        return BatchLoader(
            BatchDataset(pixels.to(device), labels.to(device), self.eval_batch_size, seed=None)
        )

    def _device(self, size: int) -> torch.device:
        """Where `size` bytes of pictures should lie: with the network, if they fit there twice."""
        if self.trainer is None:
            return torch.device("cpu")
        device = self.trainer.strategy.root_device
        if device.type == "cuda" and torch.cuda.mem_get_info(device)[0] < 2 * size:
            return torch.device("cpu")
        return device

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to know of the data: which, and how it was split."""
        return {
            "dataset": self.data.name,
            **self._checksums,
            "val_size": len(self.val_indices),
            "split_seed": self.split_seed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to go on training on other data than the checkpoint's."""
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self.refuse_other_data(state_dict)

    def refuse_other_data(self, state_dict: dict[str, Any]) -> None:
        """Compare this data with what a checkpoint knows of its own.

        Raises:
            UserError: another data set, other pixels, or another split.
        """
        mine = self.state_dict()
        other = [key for key in mine if mine[key] != state_dict.get(key)]
        if other:
            raise UserError(
                "the checkpoint was trained on other data: "
                + "; ".join(f"{key} {state_dict.get(key)} there, {mine[key]} here" for key in other)
                + "; put them back as they were, or start a new run with fit"
            )


def _remedy(name: str) -> str:
    return (
        f"with a network: {PROGRAM} data {'mnist' if name == 'auto' else name} --fetch; or point "
        "--data.data_dir at a folder that torchvision downloaded to"
    )
