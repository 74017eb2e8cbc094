"""Replace bfloat16 by single precision on a CPU that has no instructions for it."""

from collections.abc import MutableMapping
from functools import cache
from typing import Any

import torch

from mnist_lightning import distributed
from mnist_lightning.text import say

# PyTorch's names of processors on which a convolution in bfloat16 takes several times as long.
SLOW_CAPABILITIES = {"DEFAULT", "AVX2"}
BFLOAT16 = {"bf16", "bf16-mixed"}
SINGLE = "32-true"


def use_fast_precision(trainer: MutableMapping[str, Any]) -> None:
    """Change bf16-mixed to 32-true, if the trainer will use a CPU that computes it slowly.

    Args:
        trainer: the arguments of the trainer; those that are missing have Lightning's defaults.
    """
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    accelerator = trainer.get("accelerator", "auto")
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not has_gpu)
    slow = torch.backends.cpu.get_cpu_capability() in SLOW_CAPABILITIES
    precision = trainer.get("precision")
    if on_cpu and slow and precision in BFLOAT16:
        trainer["precision"] = SINGLE
        _report(precision)


@cache  # once per process: a sweep checks several configurations
def _report(precision: str) -> None:
    if distributed.is_rank_zero():
        say(
            f"this processor computes bfloat16 slowly: uses precision {SINGLE}, not {precision} "
            f"(--trainer.precision {precision} prevents this)"
        )
