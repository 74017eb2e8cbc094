"""Mutate a file of a run, as an attacker, a faulty disk or a bad download may; see `fuzz_files`."""

import hashlib
import io
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from tree_mutations import NUMBERS, TEXTS, mutate_tree

DIGEST_PREFIX = b"mnist_lightning sha256 "
DIGEST_LENGTH = len(DIGEST_PREFIX) + hashlib.sha256().digest_size


def _append_digest(content: bytes) -> bytes:
    """Append the digest of a checkpoint file, which needs no key."""
    return content + DIGEST_PREFIX + hashlib.sha256(content).digest()


def _mutate_checkpoint(path: Path, rng: random.Random) -> str:
    checkpoint = torch.load(path, weights_only=True)
    count = rng.choice([1, 1, 1, 2, 4])
    change = ", ".join(mutate_tree(checkpoint, rng) for _ in range(count))
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    path.write_bytes(_append_digest(buffer.getvalue()))
    if path.name == "last.ckpt" and rng.random() < 0.5:  # no older checkpoint to use instead
        for older in path.parent.glob("last-*.ckpt"):
            older.unlink()
    return change


def _corrupt_archive(path: Path, rng: random.Random) -> str:
    """Corrupt the zip archive of a checkpoint, with a correct digest."""
    content = bytearray(path.read_bytes()[:-DIGEST_LENGTH])
    change = _corrupt(content, rng)
    path.write_bytes(_append_digest(bytes(content)))
    return f"archive {change}"


def _mutate_yaml(path: Path, rng: random.Random) -> str:
    text = path.read_text()
    kind = rng.choice(["tree"] * 8 + ["tag", "aliases", "deep", "garbage", "keys", "end"])
    if kind == "tree":
        config = yaml.safe_load(text)
        change = mutate_tree(config, rng)
        path.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        return change
    key = rng.choice([line for line in text.splitlines() if ": " in line]).split(": ")[0]
    suffix = {
        "tag": f"{key}: !!python/object/apply:os.system ['mkdir /tmp/fuzz_files_executed']\n",
        "aliases": "".join(
            f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]\n" for n in range(12)
        ),
        "deep": f"{key}: {'[' * 5_000}{']' * 5_000}\n",
        "garbage": "\x00\ufffe: [\n",
        "keys": "".join(f"k{n}: 1\n" for n in range(50_000)),
        "end": "---\n- 1\n",
    }[kind]
    path.write_bytes((text + suffix).encode())
    return kind


def _mutate_json(path: Path, rng: random.Random) -> str:
    text = path.read_text()
    kind = rng.choice(["tree"] * 8 + ["deep", "digits", "constant", "list", "bytes"])
    if kind == "tree":
        summary = json.loads(text)
        change = ", ".join(mutate_tree(summary, rng) for _ in range(rng.choice([1, 1, 3])))
        path.write_text(json.dumps(summary))
        return change
    mutated = {
        "deep": '{"state": ' + "[" * 200_000 + "]" * 200_000 + "}",
        "digits": text.replace('"seed": ', '"seed": ' + "9" * 50_000, 1),
        "constant": text.replace('"parameters": ', '"parameters": 1e9999, "x": ', 1),
        "list": f"[{text}]",
        "bytes": text.replace("digits", "\udcff\udc80"),
    }[kind]
    path.write_bytes(mutated.encode(errors="surrogateescape"))
    return kind


def _mutate_csv(path: Path, rng: random.Random) -> str:
    lines = path.read_text().splitlines()
    row = rng.randrange(len(lines))
    cells = lines[row].split(",")
    column = rng.randrange(len(cells))
    kind = rng.choice(["cell"] * 6 + ["short", "long", "twice", "no header", "quote", "bytes"])
    if kind == "cell":
        value = rng.choice([*map(str, NUMBERS), *TEXTS, "9" * 400, "1_0", " 1", "٣", "0x1"])
        cells[column] = value.replace("\ud800", "\ufffd")
        lines[row] = ",".join(cells)
    elif kind == "short":
        lines[row] = ",".join(cells[:column])
    elif kind == "long":
        lines[row] += ",1" * rng.choice([1, 10_000])
    elif kind == "twice":
        lines += lines[row:] * rng.choice([1, 100])
    elif kind == "no header":
        del lines[0]
    elif kind == "quote":
        lines[row] = '"' + lines[row]
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(content.replace(b"1", b"\xff\x00", 1) if kind == "bytes" else content)
    return f"{kind}, row {row}, column {column}"


def _mutate_events(path: Path, rng: random.Random) -> str:
    """Corrupt a file of TensorBoard events, or change the length field of one record."""
    content = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        change = _corrupt(content, rng)
    else:
        offset, offsets = 0, []
        while offset + 12 <= len(content):
            (length,) = struct.unpack_from("<Q", content, offset)
            offsets.append(offset)
            offset += 16 + length
        offset = rng.choice(offsets)
        length = rng.choice([0, 1, 2**31, 2**63, 2**64 - 1, 5])
        content[offset : offset + 8] = struct.pack("<Q", length)
        change = f"the record at {offset} has length {length}"
    path.write_bytes(content)
    return change


def _mutate_safetensors(path: Path, rng: random.Random) -> str:
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    kind = rng.choice(["header", "header", "metadata", "metadata", "length", "bytes"])
    if kind == "bytes":
        return _corrupt_file(path, rng)
    if kind == "header":
        change = mutate_tree(header, rng)
    else:
        metadata = json.loads(header["__metadata__"]["mnist_lightning"])
        change = mutate_tree(metadata, rng)
        header["__metadata__"]["mnist_lightning"] = json.dumps(metadata)
    text = json.dumps(header).encode()
    size = rng.choice([0, 2**40, 2**64 - 1]) if kind == "length" else len(text)
    path.write_bytes(struct.pack("<Q", size) + text + data)
    return f"{kind} {change}"


def _corrupt(content: bytearray, rng: random.Random) -> str:
    """Change, remove or insert bytes in place."""
    if not content:
        return "empty"
    offset = rng.randrange(len(content))
    kind = rng.choice(["flip", "cut", "zeros", "random", "insert", "empty"])
    if kind == "flip":
        content[offset] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[offset:]
    elif kind == "zeros":
        content[offset : offset + 64] = bytes(64)
    elif kind == "random":
        content[offset : offset + 64] = rng.randbytes(64)
    elif kind == "insert":
        content[offset:offset] = rng.randbytes(rng.choice([1, 1000]))
    else:
        content.clear()
    return f"{kind} at {offset}"


def _corrupt_file(path: Path, rng: random.Random) -> str:
    content = bytearray(path.read_bytes())
    change = _corrupt(content, rng)
    path.write_bytes(content)
    return change


def _replace_file(path: Path, rng: random.Random) -> str:
    """Replace the file with a link, a directory or a named pipe, or delete it."""
    links = {"link to nothing": "nowhere", "link to itself": path.name, "link out": "/etc/passwd"}
    kind = rng.choice([*links, "folder", "pipe", "gone"])
    path.unlink()
    if kind in links:
        path.symlink_to(links[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    return kind


Mutation = Callable[[Path, random.Random], str]
# A mutation in a list n times is n times as frequent.
MUTATIONS: dict[str, list[Mutation]] = {
    "best.ckpt": [*[_mutate_checkpoint] * 8, _corrupt_archive, _corrupt_file, _replace_file],
    "last.ckpt": [*[_mutate_checkpoint] * 8, _corrupt_archive, _corrupt_file, _replace_file],
    "config.yaml": [*[_mutate_yaml] * 8, _corrupt_file, _replace_file],
    "summary.json": [*[_mutate_json] * 8, _corrupt_file, _replace_file],
    "metrics.csv": [*[_mutate_csv] * 6, _corrupt_file, _replace_file],
    "predictions.csv": [*[_mutate_csv] * 6, _corrupt_file, _replace_file],
    "events": [*[_mutate_events] * 6, _replace_file],
    "model.safetensors": [*[_mutate_safetensors] * 6, _corrupt_file, _replace_file],
}
NUM_KINDS = len({function for functions in MUTATIONS.values() for function in functions})


def mutate(file: str, path: Path, rng: random.Random) -> str:
    """Apply a random mutation to a file; describe the change."""
    malicious_module = path.parent / "evil.py"
    malicious_module.write_text("import os\nos.mkdir('/tmp/fuzz_files_executed')\n")
    return rng.choice(MUTATIONS[file])(path, rng)
