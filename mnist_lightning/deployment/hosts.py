"""The host names under which the server may be addressed.

Against DNS rebinding: a foreign page makes its own name point to this machine, after which the
browser lets it read the answers of this server. The browser still sends the foreign name in the
header Host, by which such a request is recognized. Nobody can make an IP address point elsewhere,
so that every Host that is an address is accepted, whatever the address is.
"""

import re
import socket
from collections.abc import Iterable
from ipaddress import ip_address

_HOST = re.compile(r"(\[(?P<v6>[0-9A-Fa-f:.%\w-]+)\]|(?P<name>[^\s:/@\[\]?#]+))(:\d{1,5})?")


def own_names(bound: str, allowed: Iterable[str], local: bool) -> frozenset[str]:
    """The names of this server, in lower case.

    Args:
        bound: the `--host` that it listens on.
        allowed: further names, from `--allow_host`.
        local: whether only this machine is served. The names of the machine in its network are
            not needed then, and to find out the full one may ask a name server.
    """
    names = {"localhost", bound, *allowed}
    if not local:
        host = socket.gethostname()
        names |= {host, f"{host}.local", socket.getfqdn()}
    return frozenset(name.lower().rstrip(".") for name in names if name)


def is_own(host: str | None, names: frozenset[str]) -> bool:
    """Whether a header Host, which may have a port, names this server."""
    found = _HOST.fullmatch(host or "")
    if found is None:
        return False
    name = (found["v6"] or found["name"]).lower().rstrip(".")
    try:
        ip_address(name)
    except ValueError:
        return found["v6"] is None and name in names
    return True
