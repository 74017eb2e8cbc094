"""MNIST and similar data sets as a LightningDataModule."""

import warnings
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader

from mnist_lightning import distributed
from mnist_lightning.data.arguments import DatasetName, check_arguments
from mnist_lightning.data.augmentations import Augmentation
from mnist_lightning.data.datasets import DigitData, SourceName
from mnist_lightning.data.loader import BatchDataset, BatchLoader
from mnist_lightning.data.reader import DatasetReader
from mnist_lightning.data.splits import Split, combine, default_val_size, split
from mnist_lightning.errors import UserError
from mnist_lightning.text import join_words


class MNISTDataModule(LightningDataModule):
    """Digits: training, validation and test batches, normalized.

    The test set is the official one and is used only for testing. The validation set is a part of
    the training images; it depends only on `split_seed`, not on the global generator.

    Args:
        dataset: `auto`: MNIST if it is on disk or can be downloaded, otherwise the bundled
            digits, with a warning; `folder`: your own images; `idx`: your own arrays in MNIST's
            format; any other name is strict.
        data_dir: a torchvision root: MNIST's files are in `data_dir/MNIST/raw`, raw or .gz.
        batch_size: training samples per step, over all processes.
        eval_batch_size: samples per batch in validation and test; does not change the results. 200
            fit into the processor's caches; 1,000 with DeepCNN do not, and take twice as long.
        val_size: number of training images for validation. None: 5,000 of MNIST's 60,000, a
            default for each other data set; 0: train on all images.
        split_seed: selects the validation images.
        seed: shuffles the training samples, differently in each epoch. None: the seed of torch's
            generator, which `seed_everything` sets.
        num_workers: processes that prepare training batches; does not change the batches.
        pin_memory: use page-locked memory for training batches; does not change the batches.
        augment: random changes of the training images in each epoch; several apply in order.
        folder: your own images, in a folder for each label: `folder/3/anything.png`; or your own
            arrays, four files with the names of MNIST's, not compressed.
        test_share: fraction of the images of a folder for testing: 0 to 1. MNIST and arrays have
            their own test images.
        extra: additional data sets for training and validation; the test set stays the same.
        extra_share: fraction of an epoch's images from the additional data sets: every image is
            used, and some are repeated to reach this fraction.
        val_extra_only: validate only on the additional data sets, so that all images of `dataset`
            that are not for testing are for training.
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
        val_extra_only: bool = False,
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
        self.val_extra_only = val_extra_only
        self.reader = DatasetReader(self.data_dir, self.folder, test_share)
        self._data: DigitData | None = None
        self.train_indices = self.val_indices = torch.zeros(0, dtype=torch.long)
        self._placed: dict[str, Tensor] = {}  # images on the device of the network
        self._train_loader: BatchLoader | None = None
        check_arguments(vars(self))
        plain = {
            **{"dataset": dataset, "data_dir": str(data_dir), "folder": folder},
            **{"batch_size": batch_size, "eval_batch_size": eval_batch_size},
            **{"val_size": val_size, "split_seed": split_seed, "seed": seed},
            **{"num_workers": num_workers, "pin_memory": pin_memory},
            **{"test_share": test_share, "extra": self.extra, "extra_share": extra_share},
            "val_extra_only": val_extra_only,
        }
        # Only arguments of the constructor: `load_from_checkpoint` may pass them all to it.
        self.save_hyperparameters(plain)

    @classmethod
    def of(cls, trainer: Trainer) -> Self:
        """Return the data module of a trainer."""
        data = trainer.datamodule  # type: ignore[attr-defined] # set by Trainer.fit
        assert isinstance(data, cls)
        return data

    def prepare_data(self) -> None:
        """Download missing data, and read own images, only in one process.

        Raises:
            UserError: the data set is damaged, or it is strict and not available.
        """
        if self._data is not None:
            return
        for name in (self.dataset, *self.extra):
            self.reader.prepare(name)

    def setup(self, stage: str | None = None) -> None:
        """Load and split the data once, for all stages."""
        # The batches are in memory: workers would make them slower.
        warnings.filterwarnings("ignore", ".*does not have many workers")
        if self._data is not None:
            return
        data = self.reader.read(self.dataset)
        if self.folder is not None and len(set(distributed.all_gather(data.checksum))) > 1:
            problem = f"{self.folder} changed while its images were read"
            raise UserError(f"{problem}; repeat the command")
        own = self._split(data, 0 if self.val_extra_only else self.val_size)
        self.own_train_size = len(own.train)  # without additional data sets
        self._checksums: dict[str, Any] = {"checksum": own.data.checksum}
        extra_val_size = 0 if self.val_size == 0 else None
        extra = [self.reader.read(name) for name in self.extra if name != own.data.name]
        if extra:
            self._checksums["extra_checksums"] = {data.name: data.checksum for data in extra}
            others = [self._split(data, extra_val_size) for data in extra]
            own = combine(own, others, self.extra_share)
        self._data, self.train_indices, self.val_indices = own

    def _split(self, data: DigitData, val_size: int | None) -> Split:
        count = len(data.train_labels)
        val_size = default_val_size(data) if val_size is None else val_size
        if val_size >= count > 0:
            raise UserError(
                f"--data.val_size {val_size} leaves no training images: "
                f"{data.name} has {count:,}; use a smaller value",
                status=2,
            )
        return Split(data, *split(count, min(val_size, count), self.split_seed))

    @property
    def data(self) -> DigitData:
        """Return the data set in memory.

        Raises:
            RuntimeError: `setup` has not been called.
        """
        if self._data is None:
            raise RuntimeError("call prepare_data() and setup() first; a Trainer calls them itself")
        return self._data

    @property
    def title(self) -> str:
        """Return the names of the data set and of the additional data sets, as a title."""
        own = self.data.name
        return join_words([own, *(name for name in self.extra if name != own)])

    @property
    def train_batches(self) -> int:
        """Return the number of batches per epoch."""
        return -(-len(self.train_indices) // self.batch_size)

    def train_dataloader(self) -> BatchLoader:
        """Return shuffled batches of normalized images (B, 1, 28, 28) and labels (B,)."""
        seed = distributed.run_on_rank_zero(torch.initial_seed) if self.seed is None else self.seed
        overfit_batches = getattr(self.trainer, "overfit_batches", 0)  # set by Trainer
        repeat = overfit_batches > 0
        on_device = self.num_workers == 0
        batches = self._dataset("train", self.train_indices, self.batch_size, seed, on_device)
        batches.augment, batches.repeat = self.augment, repeat
        pin = self.pin_memory and torch.cuda.is_available() and batches.images.device.type == "cpu"
        self._train_loader = BatchLoader(batches, self.num_workers, pin)
        return self._train_loader

    def teardown(self, stage: str) -> None:
        """Stop the workers."""
        if self._train_loader is not None:
            self._train_loader.close()
            self._train_loader = None

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return batches of the validation images, in order; none if `val_size` is 0."""
        return self._evaluation_loader("train", self.val_indices)

    def test_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return batches of all test images, in order; none if there are no test images."""
        return self._evaluation_loader("test", None)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return batches of all test images, in order, for `Trainer.predict`."""
        samples = self._dataset("test", None, self.eval_batch_size, on_device=False)
        return DataLoader(samples, batch_size=self.eval_batch_size)

    def _evaluation_loader(self, part: str, rows: Tensor | None) -> BatchLoader | list[BatchLoader]:
        dataset = self._dataset(part, rows, self.eval_batch_size)
        return BatchLoader(dataset) if len(dataset) else []

    def _dataset(
        self,
        part: str,
        rows: Tensor | None,
        batch_size: int,
        seed: int | None = None,
        on_device: bool = True,
    ) -> BatchDataset:
        """Return the batches of the images `part`, `train` or `test`, with these indices."""
        data = self.data
        images, labels = data.test_images, data.test_labels
        if part == "train":
            images, labels = data.train_images, data.train_labels
        if rows is not None:
            labels = labels[rows]
        if on_device:
            images = self._place(part, images)
            labels = labels.to(images.device)
            rows = None if rows is None else rows.to(images.device)
        return BatchDataset(images, labels, batch_size, seed, rows=rows)

    def _place(self, part: str, images: Tensor) -> Tensor:
        """Return the images on the device of the network, if they fit there twice."""
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        placed = self._placed.get(part, images)
        if placed.device == device:
            return placed
        if device.type == "cuda" and torch.cuda.mem_get_info(device)[0] < 2 * images.numel():
            return images
        self._placed[part] = images.to(device)
        return self._placed[part]

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint stores about the data: the data set and its split."""
        return {
            "dataset": self.data.name,
            **self._checksums,
            "val_size": len(self.val_indices),
            "split_seed": self.split_seed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raise a UserError if training would resume on different data."""
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self.check_same_data(state_dict)

    def check_same_data(self, state_dict: dict[str, Any]) -> None:
        """Compare this data with the data description in a checkpoint.

        Raises:
            UserError: the data set, its pixels or its split differ.
        """
        current = self.state_dict()
        other = [key for key in current if current[key] != state_dict.get(key)]
        if other:
            raise UserError(
                "the checkpoint was trained on different data: "
                + "; ".join(
                    f"{key} was {state_dict.get(key)}, is now {current[key]}" for key in other
                )
                + "; restore the data and the --data options, or start a new run with fit"
            )
