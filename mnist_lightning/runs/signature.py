"""Sign the files of your own runs, to tell them from files from elsewhere.

The signature is an HMAC (RFC 2104, SHA-256) with a key that stays in the user's configuration
directory. Only a person who can read this key can create a file that names classes to import; see
`docs/decisions/trust.md`.
"""

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from platformdirs import user_config_path

from mnist_lightning.errors import UserError
from mnist_lightning.files import read_bounded

SIGNATURE_BYTES = hashlib.sha256().digest_size
_KEY_BYTES = 32


def key_path() -> Path:
    """Return the path of this user's signing key."""
    return user_config_path("mnist_lightning") / "signing.key"


def signing_key(create: bool = False) -> bytes | None:
    """Read the signing key.

    Args:
        create: create a key if none exists.

    Returns:
        The key; None if it does not exist, is damaged, or cannot be stored or read.
    """
    path = key_path()
    if create and not path.exists():
        with suppress(OSError):
            _create_key(path)
    key = b""
    with suppress(OSError, UserError):
        key = read_bounded(path, _KEY_BYTES)
    return key if len(key) == _KEY_BYTES else None


def _create_key(path: Path) -> None:
    """Store a new key that only its owner can read; if two processes do this, the first wins."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        os.link(temporary, path)  # unlike a rename, it never replaces a key
    finally:
        temporary.unlink(missing_ok=True)


def sign(kind: str, content: bytes) -> bytes | None:
    """Sign the content of a file.

    Args:
        kind: the kind of file, such as `checkpoint`: a signature is valid for only one kind.
        content: the whole file without its signature.

    Returns:
        32 bytes; None if no key can be stored.
    """
    key = signing_key(create=True)
    return None if key is None else _signature(key, kind, hashlib.sha256(content).digest())


def is_signed(kind: str, content: bytes, signature: bytes) -> bool:
    """Return whether this user signed this content on this machine."""
    return is_signed_digest(kind, hashlib.sha256(content).digest(), signature)


def is_signed_digest(kind: str, digest: bytes, signature: bytes) -> bool:
    """Return whether this user signed the content with this SHA-256 on this machine."""
    key = signing_key()
    return key is not None and hmac.compare_digest(_signature(key, kind, digest), signature)


def _signature(key: bytes, kind: str, digest: bytes) -> bytes:
    return hmac.digest(key, f"mnist_lightning {kind}\0".encode() + digest, "sha256")
