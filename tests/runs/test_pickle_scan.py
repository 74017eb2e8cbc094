"""Checkpoints whose pickle needs much more time or memory than its size, or creates objects."""

import io
import itertools
import time
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mnist_lightning.runs.checkpoint import (
    DamagedCheckpointError,
    dump_checkpoint,
    parse_checkpoint,
    read_checkpoint,
)
from mnist_lightning.runs.pickle_scan import MAX_INSTRUCTIONS, ForbiddenPickleError, check_pickle
from tests.malicious_pickles import (
    LISTS,
    P,
    checkpoint_with_pickle,
    malicious_pickles,
    pickle_text,
    replace_pickle,
    with_state_dict,
)

MALICIOUS_PICKLES = dict(malicious_pickles())


@pytest.mark.parametrize("name", MALICIOUS_PICKLES)
def test_a_malicious_pickle_is_rejected_quickly(name: str) -> None:
    began = time.process_time()
    with pytest.raises(DamagedCheckpointError):
        parse_checkpoint(checkpoint_with_pickle(MALICIOUS_PICKLES[name]), Path("x.ckpt"))
    assert time.process_time() - began < 1


@pytest.mark.slow
def test_values_outside_containers_are_counted() -> None:
    content = checkpoint_with_pickle(P.PROTO + b"\x02" + P.NONE * (MAX_INSTRUCTIONS + 1) + P.STOP)
    with pytest.raises(DamagedCheckpointError, match="more than 1,000,000 instructions"):
        parse_checkpoint(content, Path("x.ckpt"))


def unsupported_values() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "sparse", {"a": torch.eye(3).to_sparse()}
    yield "stride 0", {"a": torch.zeros(1).expand(10**9)}
    yield "views", {"a": [torch.zeros(1000)[:999]] * 10_000}
    yield "views that are copied as float32", {"a": [torch.zeros(1000).half()] * 9}
    circle: list[Any] = []
    circle.append(circle)
    yield "a circle", {"a": circle}
    shared = OrderedDict(a=1)
    shared.get = 5  # type: ignore[method-assign,assignment]
    yield "attributes", {"a": shared}
    yield "a device", {"a": torch.device("cpu")}
    yield "a complex number", {"a": 1j}
    late: list[list[Any]] = [[] for _ in range(40)]
    for outer, inner in itertools.pairwise(late):
        outer += [inner, inner]
    yield "lists of lists", {"a": list(reversed(late))}


UNSUPPORTED_VALUES = dict(unsupported_values())


@pytest.mark.parametrize("name", UNSUPPORTED_VALUES)
def test_unsupported_values_and_values_larger_than_the_file_are_rejected(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(dump_checkpoint({"state_dict": {}, "callbacks": UNSUPPORTED_VALUES[name]}))
    with pytest.raises(DamagedCheckpointError, match=r"callbacks|value|contains|instruction|calls"):
        read_checkpoint(path)


def test_the_values_of_a_real_checkpoint_are_accepted(tmp_path: Path) -> None:
    network = torch.nn.Linear(3, 2)
    checkpoint = {
        "state_dict": network.state_dict(),
        "callbacks": {
            "python": (3, tuple(range(625)), None),
            "numpy": ("MT19937", torch.zeros(624, dtype=torch.uint32), 3, 0, 0.0),
            "bytes": b"\x00\xff",
            "milestones": Counter([3, 3, 8]),
            "numbers": [True, -1, 2**63 - 1, 2**64 - 1, 0.5, float("nan")],
            "shared": [network.weight, network.weight],
            "dtypes": [torch.zeros(2, dtype=d) for d in (torch.half, torch.bool, torch.int64)],
            "rows": torch.arange(6).reshape(2, 3).t(),
            "empty": torch.zeros(0),
        },
    }
    path = tmp_path / "x.ckpt"
    path.write_bytes(dump_checkpoint(checkpoint))
    again = read_checkpoint(path)
    assert again["callbacks"]["rows"].equal(torch.arange(6).reshape(2, 3).t())
    assert again["callbacks"]["milestones"] == Counter([3, 3, 8])
    assert again["callbacks"]["bytes"] == b"\x00\xff"


def test_mutated_pickles_raise_only_one_exception_class() -> None:
    numbers = np.random.default_rng(0)
    target_buffer = with_state_dict(pickle_text("epoch") + LISTS[:60] + P.SETITEM)
    for _ in range(2_000):
        mutated = bytearray(target_buffer)
        for _ in range(numbers.integers(1, 5)):
            mutated[numbers.integers(len(mutated))] = numbers.integers(256)
        try:
            check_pickle(bytes(mutated))
        except ForbiddenPickleError:
            continue


@pytest.mark.parametrize(
    "key", [lambda n: (n, -n), lambda n: n, lambda n: n / 7, lambda n: 2**40 * n]
)
def test_many_keys_that_are_not_strings_are_rejected(key: Any) -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": {}, "odd": {key(n): 0 for n in range(6_000)}}, buffer)
    with pytest.raises(DamagedCheckpointError, match="5,000 keys are not strings"):
        parse_checkpoint(buffer.getvalue(), Path("odd.ckpt"))


@pytest.mark.parametrize("metadata", ["text", {"network": 5}, {"": {"version": "x"}}, {5: {}}])
def test_metadata_of_a_state_dict_may_only_contain_versions(metadata: Any) -> None:
    weights: Any = OrderedDict(a=torch.zeros(4))
    weights._metadata = {"": {"version": 1}}
    buffer = io.BytesIO()
    torch.save({"state_dict": weights}, buffer)
    parse_checkpoint(buffer.getvalue(), Path("fine.ckpt"))
    weights._metadata = metadata
    buffer = io.BytesIO()
    torch.save({"state_dict": weights}, buffer)
    with pytest.raises(DamagedCheckpointError, match="has attributes"):
        parse_checkpoint(buffer.getvalue(), Path("odd.ckpt"))


@pytest.mark.parametrize("version", ["0.0.1", "1.9.5", "banana", "9." * 4_000 + "9"])
def test_a_checkpoint_of_an_old_or_no_version_is_refused(version: str) -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": {}, "pytorch-lightning_version": version}, buffer)
    with pytest.raises(DamagedCheckpointError, match="was written by Lightning") as raised:
        parse_checkpoint(buffer.getvalue(), Path("odd.ckpt"))
    assert len(str(raised.value)) < 200


def test_a_checkpoint_with_a_version_of_megabytes_is_refused() -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": {}, "pytorch-lightning_version": "9." * 2_000_000 + "9"}, buffer)
    with pytest.raises(DamagedCheckpointError, match="more than 10,000 characters"):
        parse_checkpoint(buffer.getvalue(), Path("odd.ckpt"))


@pytest.mark.parametrize("more", [-1, 1, 1_000_000])
def test_a_storage_has_the_bytes_that_its_tensor_claims(more: int) -> None:
    """Some versions of torch would read beyond the end of the record."""
    buffer = io.BytesIO()
    torch.save({"state_dict": {"a": torch.zeros(1000, dtype=torch.float16)}}, buffer)
    count = P.BININT2 + (1000).to_bytes(2, "little")
    with zipfile.ZipFile(buffer) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        data = archive.read(name)
    assert data.count(count) == 2  # of the storage, and of the shape
    changed = data.replace(count, P.BININT + (1000 + more).to_bytes(4, "little"), 1)
    with pytest.raises(
        DamagedCheckpointError, match=f"storage 0 does not have {2000 + 2 * more:,}"
    ):
        parse_checkpoint(replace_pickle(buffer, changed), Path("x.ckpt"))


TYPES = "bool uint8 int8 int16 uint32 int64 float16 bfloat16 float32 float64 complex64 complex128"


@pytest.mark.parametrize("name", TYPES.split())
def test_a_storage_of_any_type_is_accepted(name: str) -> None:
    tensor = torch.ones(5, dtype=getattr(torch, name))
    content = dump_checkpoint({"state_dict": {"a": tensor, "b": tensor[:2], "c": tensor[:0]}})
    checkpoint, _ = parse_checkpoint(content, Path("x.ckpt"))
    assert torch.equal(checkpoint["state_dict"]["a"], tensor)
