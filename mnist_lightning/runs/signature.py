"""Sign the files of your own runs, to tell them from files from elsewhere.

A file is signed with an HMAC (RFC 2104, SHA-256) under a key that never leaves the user's
configuration directory. Only who can read that key can make a file that names classes to import;
see `docs/decisions/trust.md`.
"""

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from platformdirs import user_config_path

SIGNATURE_BYTES = hashlib.sha256().digest_size
_KEY_BYTES = 32


def key_path() -> Path:
    """Return where the signing key of this user is stored."""
    return user_config_path("mnist_lightning") / "signing.key"


def signing_key(create: bool = False) -> bytes | None:
    """Read the signing key.

    Args:
        create: make a key if there is none.

    Returns:
        The key; None if there is none, it is damaged, or it cannot be stored or read.
    """
    path = key_path()
    if create and not path.exists():
        with suppress(OSError):
            _create_key(path)
    try:
        key = path.read_bytes()
    except OSError:
        return None
    return key if len(key) == _KEY_BYTES else None


def _create_key(path: Path) -> None:
    """Store a new key that only its owner can read; of two processes the first one wins."""
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
        kind: what the file is, such as `checkpoint`: a signature of one kind is invalid for
            another.
        content: all of the file but its signature.

    Returns:
        32 bytes; None if no key can be stored.
    """
    key = signing_key(create=True)
    return None if key is None else _signature(key, kind, hashlib.sha256(content).digest())


def is_signed(kind: str, content: bytes, signature: bytes) -> bool:
    """Tell whether this user signed this content on this machine."""
    return is_signed_digest(kind, hashlib.sha256(content).digest(), signature)


def is_signed_digest(kind: str, digest: bytes, signature: bytes) -> bool:
    """Tell whether this user signed the content with this SHA-256 on this machine."""
    key = signing_key()
    return key is not None and hmac.compare_digest(_signature(key, kind, digest), signature)


def _signature(key: bytes, kind: str, digest: bytes) -> bytes:
    return hmac.digest(key, f"mnist_lightning {kind}\0".encode() + digest, "sha256")
