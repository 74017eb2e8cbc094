"""Knowledge distillation: a network learns the probabilities that other networks predict."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnist_lightning.networks.ensemble import Ensemble
from mnist_lightning.networks.registry import WrongWeightsError, build, describe

TEACHER_KEY = "teacher"  # of a checkpoint, and of the attribute of a classifier


class Teacher(nn.Module):
    """Networks whose mean probabilities replace the labels of the training images.

    By Hinton, Vinyals and Dean ("Distilling the knowledge in a neural network", 2015). The teacher
    sees the same augmented images as the network that it teaches, as in Beyer et al. ("Knowledge
    distillation: a good teacher is patient and consistent", 2022). It never changes, and is saved
    in each checkpoint, so that a run resumes without the runs of the teacher.

    Args:
        networks: each maps images (B, 1, 28, 28) to logits (B, C).
        source: where they are from, for the user.

    Raises:
        UserError: their numbers of classes differ.
    """

    def __init__(self, networks: Iterable[nn.Module], source: str) -> None:
        super().__init__()
        self.ensemble = Ensemble(networks)
        self.source = source
        self.requires_grad_(False).train()  # Lightning warns of modules in evaluation mode
        self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) normalized images to probabilities (B, C)."""
        log_probabilities: Tensor = self.ensemble.eval()(images)
        return log_probabilities.exp()

    def targets(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the probabilities of images (B, 1, 28, 28), except of non-digits.

        Args:
            images: normalized.
            labels: (B,), or targets (B, C), of which those of non-digits are uniform. Of mixed
                images, the uniform share of the target is kept.
        """
        probabilities: Tensor = self(images)
        if labels.ndim == 1:
            return probabilities
        uniform = labels.amin(dim=1, keepdim=True).expand_as(labels)
        missing = labels.shape[1] - probabilities.shape[1]  # of classes; below 0: too many
        kept = functional.pad(uniform, (0, max(-missing, 0)))
        learned = functional.pad(probabilities, (0, max(missing, 0)))
        return learned * (1 - uniform.sum(dim=1, keepdim=True)) + kept

    def description(self) -> dict[str, Any]:
        """Return in primitives what `read_teacher` needs beside the weights."""
        networks = [describe(network) for network in self.ensemble.members]
        return {"networks": networks, "source": self.source}


def read_teacher(checkpoint: Mapping[str, Any]) -> Teacher | None:
    """Build the teacher of a checkpoint; None if the run has no teacher.

    Raises:
        WrongWeightsError: its weights do not match its description.
        UserError: a network is not an architecture of this package.
    """
    if TEACHER_KEY not in checkpoint:
        return None
    stored, weights = checkpoint[TEACHER_KEY], checkpoint["state_dict"]
    try:
        descriptions, source = list(stored["networks"]), str(stored["source"])
    except (KeyError, TypeError):
        raise WrongWeightsError("its description of the teacher is invalid") from None
    networks = []
    for index, description in enumerate(descriptions):
        prefix = f"{TEACHER_KEY}.ensemble.members.{index}."
        own = {
            name.removeprefix(prefix): weight
            for name, weight in weights.items()
            if name.startswith(prefix)
        }
        networks.append(build(description, weights=own))
    if not networks:
        raise WrongWeightsError("its teacher has no networks")
    return Teacher(networks, source)
