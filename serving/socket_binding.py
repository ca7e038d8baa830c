"""The listening socket, bound before anything else is started, so that a taken port costs nothing."""

import errno
import socket

from .errors import PortInUseError


def bind(host: str, port: int) -> socket.socket:
    """Return a listening-ready socket. Raises `PortInUseError` before anything else was started."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(host, port) from error
        raise
    return listener
