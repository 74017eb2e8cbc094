"""Read a `.safetensors` file of `export` as a checkpoint."""

import json
from pathlib import Path
from typing import Any

from mnist_lightning.errors import PACKAGE, UserError, unsigned_files
from mnist_lightning.runs.summary_json import CALIBRATION, read_calibration

METADATA_KEY = "mnist_lightning"  # of the description in the file
MAX_HEADER_BYTES = 10_000_000  # the networks here use about 3,000


def read_safetensors(path: Path, max_bytes: int) -> dict[str, Any]:
    """Return the weights as `state_dict`, and the description of the network.

    Args:
        path: of the file.
        max_bytes: its maximum size.

    Raises:
        UserError: the file is damaged, too large, or was not written by `export`.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_relative_to(PACKAGE):
        unsigned_files.last = path
    try:
        _check_header(path, max_bytes)
        with safe_open(path, "pt") as file:
            description = json.loads((file.metadata() or {})[METADATA_KEY])
            names = file.keys()
            weights = {f"network.{name}": file.get_tensor(name) for name in names}
        if not isinstance(description, dict):
            raise ValueError("its description is not an object")
        calibration = read_calibration(description)
        if calibration is None:
            wrong = [
                name for name, read in CALIBRATION.items() if read(description.get(name)) is None
            ]
            raise ValueError(f"its {wrong[0]} is invalid")
        network = description["network"]
        return {"network": network, "state_dict": weights, "calibration": calibration}
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is damaged or was not written by `export`: {reason}") from None


def _check_header(path: Path, max_bytes: int) -> None:
    """Check the size of a file and of its header, before it is parsed.

    The library checks that the tensors match the file size.
    """
    if (size := path.stat().st_size) > max_bytes:
        raise ValueError(f"it has {size:,} bytes; the limit is {max_bytes:,}")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    limit = min(size - 8, MAX_HEADER_BYTES)
    if length > limit:
        raise ValueError(f"its header has {length:,} bytes; the limit is {limit:,}")
