"""Time a training step in single precision and in bfloat16, with one thread.

    python benchmarks/precision.py configs/NAME.yaml… [--rounds 9] [--steps 5]

A step is the forward and the backward pass of the network of a config, on random images.
"""

import argparse
import statistics
import time
from functools import partial
from pathlib import Path

import torch
import yaml
from torch import nn

from mnist_lightning.networks.registry import ARCHITECTURES
from mnist_lightning.text import say


def read_network(config: Path) -> tuple[nn.Module, int]:
    """Return the network and the batch size of a config."""
    content = yaml.safe_load(config.read_text())
    named = content["model"]["network"]
    name, arguments = named, {}
    if isinstance(named, dict):
        name, arguments = named["class_path"], named.get("init_args", {})
    network = ARCHITECTURES[name.rpartition(".")[-1]](**arguments)
    return network.to(memory_format=torch.channels_last), content["data"]["batch_size"]


def time_steps(network: nn.Module, images: torch.Tensor, is_bfloat16: bool, steps: int) -> float:
    """Return the milliseconds of a step."""
    start = time.perf_counter()
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16):
            logits = network(images)
        logits.float().logsumexp(dim=1).sum().backward()
    return 1000 * (time.perf_counter() - start) / steps


def main() -> None:
    """Print the times of each config, and the median of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    say(f"processor: {torch.backends.cpu.get_cpu_capability()}")
    for config in options.configs:
        torch.manual_seed(0)
        network, batch_size = read_network(config)
        images = torch.rand(batch_size, 1, 28, 28).contiguous(memory_format=torch.channels_last)
        both = [partial(time_steps, network, images, is_bfloat16) for is_bfloat16 in (False, True)]
        for time_one in both:
            time_one(2)  # the first steps take longer
        times = [[time_one(options.steps) for time_one in both] for _ in range(options.rounds)]
        single, half = (statistics.median(values) for values in zip(*times, strict=True))
        ratio = statistics.median(after / before for before, after in times)
        text = f"single precision {single:.1f} ms, bfloat16 {half:.1f} ms, ratio {ratio:.2f}"
        say(f"{config.stem}: {text}")


if __name__ == "__main__":
    main()
