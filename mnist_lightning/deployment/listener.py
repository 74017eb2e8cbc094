"""Listen at an address of this machine."""

import socket

from mnist_lightning.errors import UserError


def open_socket(host: str, port: int) -> socket.socket:
    """Listen at an address; port 0 is any free port.

    Raises:
        UserError: the port is invalid or in use, or the host is not this machine.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}: a port is a number from 0 to 65535", status=2)
    if not host:
        raise UserError("--host is empty; give 127.0.0.1 for this machine, 0.0.0.0 for all", 2)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=128)
        # Connections inherit it. Without it, the second part of a response waits 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        fix = "; add --port 0 for any free port" if port else ""
        raise UserError(f"cannot serve at {host}, port {port}: {reason}{fix}") from None


def address_of(listener: socket.socket) -> str:
    """Return the address of a listening socket for a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
