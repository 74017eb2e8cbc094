"""Mutations of nested dictionaries and lists: replace, add, rename or delete one value."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import torch
import yaml

MAX_DEPTH = 40  # deeper values are not mutated on their own
MAX_LIST_LENGTH = 100  # the items of longer lists neither

# It creates a directory if a program constructs the classes that it names.
MALICIOUS_SPEC = {
    "class_path": "torch.nn.Linear",
    "init_args": {
        "in_features": 784,
        "out_features": 10,
        "device": {
            "class_path": "timeit.Timer",
            "init_args": {
                "stmt": "pass",
                "setup": "import os; os.mkdir('/tmp/fuzz_files_executed')",
            },
        },
    },
}
CLASS_NAMES = [
    "os.system",
    "subprocess.Popen",
    "antigravity.webbrowser",
    "lightning_logs.version_0.evil.Network",
    "evil.Network",
    "mnist_lightning.networks.nn.Linear",
    "mnist_lightning.networks.tiny_cnn.nn.Linear",
    "mnist_lightning.training.callbacks.run_summary.subprocess.Popen",
    "torch.optim.swa_utils.AveragedModel",
    "torch.optim.lr_scheduler.LambdaLR",
    "lightning.pytorch.callbacks.LambdaCallback",
    "lightning.pytorch.callbacks.ModelCheckpoint",
    "lightning.pytorch.loggers.CSVLogger",
    "mnist_lightning.networks.residual_cnn.ResidualCNN",
    "ResidualCNN",
    "builtins.exec",
]
TEXTS = [
    "",
    "x" * 100_000,
    "\x1b]0;title\x07\x1b[31m",
    "<script>alert(1)</script>",
    "[link](javascript:alert(1))\n# heading\n```",
    "=cmd|' /C calc'!A0",
    "../../../../tmp/fuzz_files_outside",
    "/tmp/fuzz_files_outside/x",
    "\u202egnp.exe",
    "\ud800",
    "{{ 7 * 7 }}",
    "[bold red]x[/]",
    "%s%s%n",
    "nan",
    "null",
    "1e999",
    "http://127.0.0.1:9/",
]
NUMBERS = [
    *(0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 10**6, 0.5, -0.5, 1e308, 1e-308),
    *(float("nan"), float("inf"), float("-inf"), True, False),
]


def mutate_tree(tree: Any, rng: random.Random) -> str:
    """Mutate one value of a tree; describe the change."""
    sections = sorted({path[:1] for path in _paths(tree)}, key=str)
    section = rng.choice(sections)  # small sections as often as large ones
    path = rng.choice([path for path in _paths(tree) if path[:1] == section])
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    last, name = path[-1], ".".join(map(str, path))
    action = rng.choice(["replace"] * 6 + ["delete", "add", "rename"])
    if action == "replace":
        old = parent[last]
        parent[last] = (
            _random_tensor(old, rng) if isinstance(old, torch.Tensor) else _random_value(rng)
        )
        return f"{name} = {repr(parent[last])[:70]}"
    if action == "add" and isinstance(parent, dict):
        key = rng.choice([*CLASS_NAMES, "class_path", "init_args", "config", "__class__", ""])
        parent[key] = _random_value(rng)
        return f"{name}: added {key}"
    if action == "rename" and isinstance(parent, dict):
        parent[str(rng.choice(TEXTS))[:50]] = parent.pop(last)
        return f"{name} renamed"
    del parent[last]
    return f"{name} deleted"


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the paths of all values in a tree, down to `MAX_DEPTH`."""
    paths = [path] if path else []
    if len(path) > MAX_DEPTH:
        return paths
    if isinstance(tree, dict):
        for key, value in tree.items():
            paths += _paths(value, (*path, key))
    elif isinstance(tree, list) and len(tree) < MAX_LIST_LENGTH:
        for index, value in enumerate(tree):
            paths += _paths(value, (*path, index))
    return paths


def _random_value(rng: random.Random) -> Any:
    """Return a value that is invalid in most places."""
    makers: list[Callable[[], Any]] = [
        lambda: rng.choice(NUMBERS),
        lambda: rng.choice(TEXTS),
        lambda: rng.choice(CLASS_NAMES),
        lambda: None,
        lambda: {},
        lambda: [],
        lambda: {"class_path": rng.choice(CLASS_NAMES), "init_args": {}},
        lambda: {"class_path": rng.choice(CLASS_NAMES), "init_args": {"width": 10**6}},
        lambda: copy.deepcopy(MALICIOUS_SPEC),
        lambda: json.dumps(MALICIOUS_SPEC),
        lambda: yaml.safe_dump(MALICIOUS_SPEC, default_flow_style=True),
        lambda: [json.dumps(MALICIOUS_SPEC)],
        lambda: [rng.choice(NUMBERS)] * rng.choice([1, 3, 10_000]),
        lambda: _nested_list(rng.choice([10, 150])),
        lambda: {"a": {"b": [1, 2, {"c": None}]}},
    ]
    return rng.choice(makers)()


def _nested_list(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _random_tensor(tensor: torch.Tensor, rng: random.Random) -> Any:
    """Return another tensor, or another value, to replace a tensor."""
    tensor = tensor.to_dense()  # an earlier mutation may have made it sparse
    makers: list[Callable[[], Any]] = [
        lambda: torch.full_like(tensor, rng.choice([0, 1, -1])),
        lambda: torch.full(tensor.shape, float("nan")),
        lambda: tensor.double(),
        lambda: tensor.to(torch.uint8),
        lambda: tensor.reshape(-1)[:0],
        lambda: tensor.flatten(),
        lambda: tensor.reshape(-1)[:1].expand(2**14, 2**14),  # a copy of it takes 1 GB or more
        lambda: torch.zeros(1).expand(2**31),
        lambda: torch.zeros(3, 3).to_sparse(),
        lambda: torch.zeros(2, 2, dtype=torch.complex64),
        lambda: tensor.tolist() if tensor.numel() < 100 else None,
        lambda: _random_value(rng),
    ]
    return rng.choice(makers)()
