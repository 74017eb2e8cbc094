"""What is wrong with a command's options, in one line with the remedy."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from torch.optim import Optimizer, lr_scheduler

from mnist_lightning import schedules
from mnist_lightning.networks import ARCHITECTURES


def explain(message: str, options: Iterable[str], command: str) -> str:
    """Turn the parser's message into a line.

    Args:
        message: what jsonargparse said, of several lines.
        options: the options there are, such as `data.batch_size`.
        command: the command, for the remedy.
    """
    names = list(options)
    unknown = re.search(r"unrecognized arguments: (.*)", message)
    if unknown:
        return _unknown(unknown[1].split(), names, command)
    in_file = re.search(r"Key '([\w.]+)' is not expected", message)
    if in_file:
        return f"the configuration has an unknown key {in_file[1]!r}{_close(in_file[1], names)}"
    missing = re.search(r"File does not exist: '?([^'\n]*)'?", message)
    if missing:
        return f"there is no configuration file {missing[1]}"
    key = re.search(r'Parser key "([\w.]+)"', message)
    return f"--{key[1]}: {_reason(message, key[1])}" if key else _one_line(message)


def _unknown(words: list[str], names: list[str], command: str) -> str:
    first = words[0]
    if not first.startswith("-"):
        return (
            f"{first!r} is not an option; a RUN comes right after the command: "
            f"python -m mnist_lightning {command} RUN …"
        )
    option = first.split("=")[0]
    hint = _close(option.lstrip("-"), names, "--")
    more = f"; all options: python -m mnist_lightning {command} --help"
    return f"there is no option {option}{hint or more}"


def _reason(message: str, key: str) -> str:
    argument = re.search(r"Option '(\w+)' is not accepted", message)
    if argument:
        owner = re.search(r"Problem with given class_path '([\w.]+)'", message)
        return f"{owner[1].rsplit('.', 1)[-1] if owner else 'it'} has no argument {argument[1]!r}"
    wrong_class = re.search(
        r"(?:dot import path string|Unable to import|class_path).*?['\": ]([\w.]+)['\"]?$",
        message,
        re.MULTILINE,
    )
    known = _classes(key)
    if wrong_class and known:
        name = wrong_class[1].rsplit(".", 1)[-1]
        near = get_close_matches(name.replace("_", "").lower(), [k.lower() for k in known], n=1)
        hint = next((f"did you mean {k}? " for k in known if near and k.lower() == near[0]), "")
        return f"there is no {name!r}; {hint}there are: {', '.join(known)}, or the path of a class"
    return _one_line(message.split(":", 1)[1])


def _classes(key: str) -> list[str]:
    if key.startswith("model.network"):
        return sorted(ARCHITECTURES)
    if key.startswith("model.optimizer"):
        return sorted(cls.__name__ for cls in _subclasses(Optimizer) if _is_public(cls))
    if key.startswith("model.lr_scheduler"):
        public = [cls for cls in _subclasses(lr_scheduler.LRScheduler) if _is_public(cls)]
        return sorted(cls.__name__ for cls in [*public, schedules.Cosine, schedules.OneCycle])
    return []


def _subclasses(base: type) -> set[type]:
    direct = set(base.__subclasses__())
    return direct.union(*(_subclasses(cls) for cls in direct)) if direct else direct


def _is_public(cls: type) -> bool:
    return cls.__module__.startswith("torch.optim") and not cls.__name__.startswith("_")


def _close(name: str, names: list[str], prefix: str = "") -> str:
    # By its last part first: --model.batch_size is a mistake for --data.batch_size.
    last = name.rsplit(".", 1)[-1]
    by_last = {n.rsplit(".", 1)[-1]: n for n in names}
    near = get_close_matches(name, names, n=1, cutoff=0.8)
    near = near or [by_last[match] for match in get_close_matches(last, by_last, n=1)]
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def _one_line(message: str) -> str:
    return " ".join(message.split())
