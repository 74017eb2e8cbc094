"""The host names under which the server may be addressed.

The check prevents DNS rebinding: a foreign page makes its own name point to this machine, and the
browser then lets it read the responses of this server. The browser still sends the foreign name in
the Host header, which identifies such a request. An IP address cannot be redirected, so a Host
header with any address is accepted.
"""

import re
import socket
from collections.abc import Iterable
from ipaddress import ip_address

_HOST = re.compile(r"(\[(?P<v6>[0-9A-Fa-f:.%\w-]+)\]|(?P<name>[^\s:/@\[\]?#]+))(:\d{1,5})?")


def own_names(bound: str, allowed: Iterable[str], local: bool) -> frozenset[str]:
    """Return the names of this server, in lower case.

    Args:
        bound: the `--host` that the server listens on.
        allowed: further names, from `--allow_host`.
        local: whether only this machine can connect. Then the network names of the machine are
            not needed; the lookup of the full name may contact a name server.
    """
    names = {"localhost", bound, *allowed}
    if not local:
        host = socket.gethostname()
        names |= {host, f"{host}.local", socket.getfqdn()}
    return frozenset(name.lower().rstrip(".") for name in names if name)


def is_loopback(host: str | None) -> bool:
    """Return whether a Host header, which may have a port, is an address of this machine itself."""
    match = _HOST.fullmatch(host or "")
    if match is None:
        return False
    try:
        return ip_address(match["v6"] or match["name"]).is_loopback
    except ValueError:
        return match["v6"] is None and match["name"].lower() == "localhost"


def is_own(host: str | None, names: frozenset[str]) -> bool:
    """Return whether a Host header, which may have a port, names this server."""
    match = _HOST.fullmatch(host or "")
    if match is None:
        return False
    name = (match["v6"] or match["name"]).lower().rstrip(".")
    try:
        ip_address(name)
    except ValueError:
        return match["v6"] is None and name in names
    return True
