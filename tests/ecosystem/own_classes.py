"""Classes that a user may have: the tests copy this file to `own.py`."""

import torchvision
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from mnist_lightning.training.lightning_module import DigitClassifier


class Forgets(nn.Module):
    """A network that does not store its argument."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) images to (B, 10) logits."""
        logits: Tensor = self.body(images)
        return logits


class Tanh(nn.Tanh):
    """An activation function of the user."""


class Shrinks(nn.Module):
    """A network that changes the list that it gets, and takes a class."""

    class Inner(Forgets):
        """A network in another class."""

    def __init__(self, sizes: list[int], activation: type[nn.Module] = nn.Tanh) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        inputs = 784
        while sizes:
            layers += [nn.Linear(inputs, sizes[0]), activation()]
            inputs = sizes.pop(0)
        self.body = nn.Sequential(*layers, nn.Linear(inputs, 10))

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) images to (B, 10) logits."""
        if images.shape[-1] != 28:
            raise AssertionError("28 pixels")
        logits: Tensor = self.body(images)
        return logits


def without_type(width=16):  # type: ignore[no-untyped-def] # a mistake of a user
    """Return a network; the parser needs the return type."""
    return Forgets(width)


def gray_resnet(num_classes: int = 10) -> nn.Module:
    """Return a small ResNet for images with one channel."""
    network: nn.Module = torchvision.models.ResNet(
        torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes, width_per_group=64
    )
    network.conv1 = nn.Conv2d(1, 64, kernel_size=3, padding=1, bias=False)
    return network


class Classifier(DigitClassifier):
    """A classifier with a hook of its own."""

    def on_train_start(self) -> None:
        """Print a line."""
        print("own classifier")


class Printer(Callback):
    """Prints a line after each epoch."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch."""
        print(f"own callback: epoch {trainer.current_epoch}")
