"""Who may load, unload and change models: this machine, the platform, and whoever sends the operator's token.

Requests for predictions are never judged here.
"""

import hmac
from dataclasses import dataclass
from ipaddress import ip_address

from starlette.requests import Request

from .errors import AdminRefusedError, AdminTokenError

SCHEME = "bearer"
# What proxies add. A proxy on this machine has this machine's address; who asked it may be anybody.
FORWARDING = ("forwarded", "x-forwarded-for", "x-real-ip")


@dataclass(frozen=True)
class Admission:
    """What an administrative request must bring. `is_open` where the platform's contract has no token."""

    token: str = ""
    is_open: bool = False

    async def check(self, request: Request) -> None:
        """Raise `AdminRefusedError` or `AdminTokenError` unless the request is allowed. For FastAPI's `Depends`."""
        # A client that has reset its connection has no address any more, wherever it was.
        is_local = request.client is not None and is_loopback(request.client.host)
        if is_local and not is_forwarded(request):
            return
        if self.token:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            is_token = hmac.compare_digest(given.strip().encode("latin-1"), self.token.encode())
            if scheme.lower() != SCHEME or not is_token:
                raise AdminTokenError
        elif not self.is_open:
            raise AdminRefusedError


def is_forwarded(request: Request) -> bool:
    """Whether a proxy says that it passes the request on. A client can say so, too, and only loses by it."""
    return any(name in request.headers for name in FORWARDING)


def is_loopback(host: str) -> bool:
    """Whether a client's address is this machine's own; a name is none."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
