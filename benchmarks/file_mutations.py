"""Change a file of a run as a stranger, a broken disk or a bad download may; see `fuzz_files`."""

import copy
import hashlib
import io
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

Chance = random.Random
# What no import, call or construction may ever reach: each leaves a trace.
SPEC = {
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
NAMES = [
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
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63),
    10**30,
    10**6,
    0.5,
    -0.5,
    1e308,
    1e-308,
    float("nan"),
    float("inf"),
    float("-inf"),
    True,
    False,
]


def _strange(chance: Chance) -> Any:
    """Return a value that hardly belongs anywhere."""
    kinds: list[Callable[[], Any]] = [
        lambda: chance.choice(NUMBERS),
        lambda: chance.choice(TEXTS),
        lambda: chance.choice(NAMES),
        lambda: None,
        lambda: {},
        lambda: [],
        lambda: {"class_path": chance.choice(NAMES), "init_args": {}},
        lambda: {"class_path": chance.choice(NAMES), "init_args": {"width": 10**6}},
        lambda: copy.deepcopy(SPEC),
        lambda: json.dumps(SPEC),
        lambda: yaml.safe_dump(SPEC, default_flow_style=True),
        lambda: [json.dumps(SPEC)],
        lambda: [chance.choice(NUMBERS)] * chance.choice([1, 3, 10_000]),
        lambda: _deep(chance.choice([10, 150])),
        lambda: {"a": {"b": [1, 2, {"c": None}]}},
    ]
    return chance.choice(kinds)()


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def _tensor(tensor: torch.Tensor, chance: Chance) -> Any:
    """Return another tensor, or another value, for the place of a tensor."""
    tensor = tensor.to_dense()  # after an earlier mutation
    kinds: list[Callable[[], Any]] = [
        lambda: torch.full_like(tensor, chance.choice([0, 1, -1])),
        lambda: torch.full(tensor.shape, float("nan")),
        lambda: tensor.double(),
        lambda: tensor.to(torch.uint8),
        lambda: tensor.reshape(-1)[:0],
        lambda: tensor.flatten(),
        lambda: tensor.reshape(-1)[:1].expand(2**14, 2**14),  # 1 GB and more, were it copied
        lambda: torch.zeros(1).expand(2**31),
        lambda: torch.zeros(3, 3).to_sparse(),
        lambda: torch.zeros(2, 2, dtype=torch.complex64),
        lambda: tensor.tolist() if tensor.numel() < 100 else None,
        lambda: _strange(chance),
    ]
    return chance.choice(kinds)()


MAX_DEPTH = 40


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the places of a tree of dictionaries and lists, as far as they are deep."""
    found = [path] if path else []
    if len(path) > MAX_DEPTH:
        return found
    if isinstance(tree, dict):
        for name, value in tree.items():
            found += _places(value, (*path, name))
    elif isinstance(tree, list) and len(tree) < 100:
        for index, value in enumerate(tree):
            found += _places(value, (*path, index))
    return found


def change_tree(tree: Any, chance: Chance) -> str:
    """Change one place of a tree; say which and how."""
    sections = sorted({place[:1] for place in _places(tree)}, key=str)
    section = chance.choice(sections)  # small sections as often as large ones
    place = chance.choice([each for each in _places(tree) if each[:1] == section])
    inside = tree
    for step in place[:-1]:
        inside = inside[step]
    last, name = place[-1], ".".join(map(str, place))
    what = chance.choice(["replace"] * 6 + ["delete", "add", "rename"])
    if what == "replace":
        old = inside[last]
        inside[last] = _tensor(old, chance) if isinstance(old, torch.Tensor) else _strange(chance)
        return f"{name} = {repr(inside[last])[:70]}"
    if what == "add" and isinstance(inside, dict):
        added = chance.choice([*NAMES, "class_path", "init_args", "config", "__class__", ""])
        inside[added] = _strange(chance)
        return f"{name}: added {added}"
    if what == "rename" and isinstance(inside, dict):
        inside[str(chance.choice(TEXTS))[:50]] = inside.pop(last)
        return f"{name} renamed"
    del inside[last]
    return f"{name} deleted"


def with_digest(content: bytes) -> bytes:
    """Append the end of a checkpoint file that anybody can compute."""
    return content + b"mnist_lightning sha256 " + hashlib.sha256(content).digest()


def _checkpoint(path: Path, chance: Chance) -> str:
    checkpoint = torch.load(path, weights_only=True)
    how = ", ".join(change_tree(checkpoint, chance) for _ in range(chance.choice([1, 1, 1, 2, 4])))
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    path.write_bytes(with_digest(buffer.getvalue()))
    if path.name == "last.ckpt" and chance.random() < 0.5:  # no other to fall back to
        for other in path.parent.glob("last-*.ckpt"):
            other.unlink()
    return how


def _archive(path: Path, chance: Chance) -> str:
    """Break the archive itself, under a correct digest."""
    content = bytearray(path.read_bytes()[:-55])
    how = _break(content, chance)
    path.write_bytes(with_digest(bytes(content)))
    return f"archive {how}"


def _yaml(path: Path, chance: Chance) -> str:
    text = path.read_text()
    kind = chance.choice(["tree"] * 8 + ["tag", "aliases", "deep", "garbage", "keys", "end"])
    if kind == "tree":
        config = yaml.safe_load(text)
        how = change_tree(config, chance)
        path.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        return how
    line = chance.choice([each for each in text.splitlines() if ": " in each]).split(": ")[0]
    added = {
        "tag": f"{line}: !!python/object/apply:os.system ['mkdir /tmp/fuzz_files_executed']\n",
        "aliases": "".join(
            f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]\n" for n in range(12)
        ),
        "deep": f"{line}: {'[' * 5_000}{']' * 5_000}\n",
        "garbage": "\x00\ufffe: [\n",
        "keys": "".join(f"k{n}: 1\n" for n in range(50_000)),
        "end": "---\n- 1\n",
    }[kind]
    path.write_bytes((text + added).encode())
    return kind


def _json(path: Path, chance: Chance) -> str:
    text = path.read_text()
    kind = chance.choice(["tree"] * 8 + ["deep", "digits", "constant", "list", "bytes"])
    if kind == "tree":
        summary = json.loads(text)
        how = ", ".join(change_tree(summary, chance) for _ in range(chance.choice([1, 1, 3])))
        path.write_text(json.dumps(summary))
        return how
    changed = {
        "deep": '{"state": ' + "[" * 200_000 + "]" * 200_000 + "}",
        "digits": text.replace('"seed": ', '"seed": ' + "9" * 50_000, 1),
        "constant": text.replace('"parameters": ', '"parameters": 1e9999, "x": ', 1),
        "list": f"[{text}]",
        "bytes": text.replace("digits", "\udcff\udc80"),
    }[kind]
    path.write_bytes(changed.encode(errors="surrogateescape"))
    return kind


def _table(path: Path, chance: Chance) -> str:
    lines = path.read_text().splitlines()
    row = chance.randrange(len(lines))
    cells = lines[row].split(",")
    column = chance.randrange(len(cells))
    kind = chance.choice(["cell"] * 6 + ["short", "long", "twice", "no header", "quote", "bytes"])
    if kind == "cell":
        value = chance.choice([*map(str, NUMBERS), *TEXTS, "9" * 400, "1_0", " 1", "٣", "0x1"])
        cells[column] = value.replace("\ud800", "\ufffd")
        lines[row] = ",".join(cells)
    elif kind == "short":
        lines[row] = ",".join(cells[:column])
    elif kind == "long":
        lines[row] += ",1" * chance.choice([1, 10_000])
    elif kind == "twice":
        lines += lines[row:] * chance.choice([1, 100])
    elif kind == "no header":
        del lines[0]
    elif kind == "quote":
        lines[row] = '"' + lines[row]
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(content.replace(b"1", b"\xff\x00", 1) if kind == "bytes" else content)
    return f"{kind}, row {row}, column {column}"


def _events(path: Path, chance: Chance) -> str:
    content = bytearray(path.read_bytes())
    if chance.random() < 0.5:
        return _write(path, content, _break(content, chance))
    place, records = 0, []
    while place + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        records.append(place)
        place += 16 + length
    place = chance.choice(records)
    length = chance.choice([0, 1, 2**31, 2**63, 2**64 - 1, 5])
    content[place : place + 8] = struct.pack("<Q", length)
    return _write(path, content, f"the record at {place} has length {length}")


def _safetensors(path: Path, chance: Chance) -> str:
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    kind = chance.choice(["header", "header", "metadata", "metadata", "length", "bytes"])
    if kind == "bytes":
        broken = bytearray(content)
        return _write(path, broken, _break(broken, chance))
    if kind == "header":
        how = change_tree(header, chance)
    else:
        about = json.loads(header["__metadata__"]["mnist_lightning"])
        how = change_tree(about, chance)
        header["__metadata__"]["mnist_lightning"] = json.dumps(about)
    text = json.dumps(header).encode()
    size = chance.choice([0, 2**40, 2**64 - 1]) if kind == "length" else len(text)
    path.write_bytes(struct.pack("<Q", size) + text + data)
    return f"{kind} {how}"


def _break(content: bytearray, chance: Chance) -> str:
    """Break bytes in place."""
    if not content:
        return "empty"
    place = chance.randrange(len(content))
    kind = chance.choice(["flip", "cut", "zeros", "random", "insert", "empty"])
    if kind == "flip":
        content[place] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del content[place:]
    elif kind == "zeros":
        content[place : place + 64] = bytes(64)
    elif kind == "random":
        content[place : place + 64] = chance.randbytes(64)
    elif kind == "insert":
        content[place:place] = chance.randbytes(chance.choice([1, 1000]))
    else:
        content.clear()
    return f"{kind} at {place}"


def _write(path: Path, content: bytearray, how: str) -> str:
    path.write_bytes(content)
    return how


def _broken(path: Path, chance: Chance) -> str:
    content = bytearray(path.read_bytes())
    return _write(path, content, _break(content, chance))


def _other_kind(path: Path, chance: Chance) -> str:
    """Put something in the place of the file that is none."""
    links = {"link to nothing": "nowhere", "link to itself": path.name, "link out": "/etc/passwd"}
    kind = chance.choice([*links, "folder", "pipe", "gone"])
    path.unlink()
    if kind in links:
        path.symlink_to(links[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    return kind


Mutation = Callable[[Path, Chance], str]
BY_FILE: dict[str, list[Mutation]] = {
    "best.ckpt": [*[_checkpoint] * 8, _archive, _broken, _other_kind],
    "last.ckpt": [*[_checkpoint] * 8, _archive, _broken, _other_kind],
    "config.yaml": [*[_yaml] * 8, _broken, _other_kind],
    "summary.json": [*[_json] * 8, _broken, _other_kind],
    "metrics.csv": [*[_table] * 6, _broken, _other_kind],
    "predictions.csv": [*[_table] * 6, _broken, _other_kind],
    "events": [*[_events] * 6, _other_kind],
    "model.safetensors": [*[_safetensors] * 6, _broken, _other_kind],
}
MUTATIONS = len({function for functions in BY_FILE.values() for function in functions})


def mutate(file: str, path: Path, chance: Chance) -> str:
    """Change a file; say how."""
    evil = path.parent / "evil.py"
    evil.write_text("import os\nos.mkdir('/tmp/fuzz_files_executed')\n")
    return chance.choice(BY_FILE[file])(path, chance)
