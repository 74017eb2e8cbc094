"""Writes docs/reference.md from the table of commands, the signatures and the docstrings.

python docs/make_reference.py
"""

import inspect
import re
from pathlib import Path
from typing import Any

import mnist_lightning
from mnist_lightning.cli.main import COMMANDS
from mnist_lightning.data import augmentations
from mnist_lightning.errors import PROGRAM
from mnist_lightning.networks.registry import ARCHITECTURES
from mnist_lightning.training.callbacks.ema import ExponentialMovingAverage
from mnist_lightning.training.callbacks.state_dict_export import WeightsFile
from mnist_lightning.training.lr_schedules import Cosine, OneCycle

FILE = Path(__file__).parent / "reference.md"
HEAD = """# Reference

Made by `make reference` from the signatures; a test holds it to them. Each command's `--help` has
its options, the Trainer's among them, which are Lightning's.
"""


def reference() -> str:
    """The whole page."""
    public = [getattr(mnist_lightning, name) for name in mnist_lightning.__all__]
    changes = [
        thing
        for thing in vars(augmentations).values()
        if inspect.isclass(thing)
        and issubclass(thing, augmentations.Augmentation)
        and not inspect.isabstract(thing)
    ]
    return "\n".join(
        [
            HEAD,
            "## Commands\n",
            *(f"    {PROGRAM} {name} {command.usage}\n" for name, command in COMMANDS.items()),
            "## In Python\n",
            "What `mnist_lightning` offers by name; all else may change.\n",
            *(_described(thing) for thing in public if not isinstance(thing, str)),
            "## Networks (`--model.network`)\n",
            *map(_described, ARCHITECTURES.values()),
            "## Augmentations (`--data.augment`)\n",
            *map(_described, changes),
            "## Schedules over the whole run (`--model.lr_scheduler`)\n",
            *map(_described, (OneCycle, Cosine)),
            "## Callbacks (`--trainer.callbacks`)\n",
            *map(_described, (ExponentialMovingAverage, WeightsFile)),
        ]
    )


def _described(thing: Any) -> str:
    """Signature and docstring, of a class also those of its methods that are its own."""
    parts = [f"### {thing.__name__}\n", f"```python\n{_signature(thing)}\n```\n", _prose(thing)]
    if thing is mnist_lightning.Recognizer:
        for name, method in vars(thing).items():
            if not name.startswith("_") and inspect.isfunction(method):
                parts += [f"#### {thing.__name__}.{name}\n", _prose(method)]
    return "\n".join(parts)


def _signature(thing: Any) -> str:
    signature = inspect.signature(thing)
    arguments = [
        re.sub(r"<function .*>|\b(\w+\.)+(?=[A-Z])", lambda found: "…" * (found[0][0] == "<"), text)
        for text in map(str, signature.parameters.values())
    ]
    line = f"{thing.__name__}({', '.join(arguments)})"
    if len(line) <= 100:
        return line
    return f"{thing.__name__}(\n" + "".join(f"    {each},\n" for each in arguments) + ")"


def _prose(thing: Any) -> str:
    """A docstring as Markdown: sections in bold, their entries as lists."""
    lines = []
    for line in (inspect.getdoc(thing) or "").splitlines():
        if re.fullmatch(r"(Args|Attributes|Raises|Returns):", line):
            lines += [f"**{line}**", ""]
        elif entry := re.match(r"    (\w+): (.*)", line):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        else:
            lines.append(line.replace("        ", "  ", 1) if line.startswith("        ") else line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
