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
