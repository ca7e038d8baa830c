"""The zygote: a process that has imported the heavy libraries once and forks hosts from itself in milliseconds.

It starts no thread pool, opens no session and touches no GPU, so that its children begin clean. It is executed, not
forked, from the front door, and speaks over one packet socket: `fork` comes in; `ready`, `forked` and `exited` go out.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import logging
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from mooring.contract.environment import process_variables
from mooring.handler.resolve import Backend
from mooring.runner.parentage import end_group, fork_beside_threads

from . import host
from .host import HostTerms

EVERYWHERE = ("numpy", "orjson", "PIL.Image", "mooring.handler.load")
# What hosts need, by backend. Code models import the rest themselves, in their own process.
PRELOADED = {
    Backend.ONNX: (*EVERYWHERE, "onnxruntime", "mooring.handler.defaults.onnx"),
    Backend.TORCH: (*EVERYWHERE, "torch"),
    Backend.TRANSFORMERS: (
        *EVERYWHERE,
        "torch",
        "transformers.modeling_utils",
        "transformers.generation",
        "transformers.models.auto.modeling_auto",
        "transformers.models.auto.tokenization_auto",
        "mooring.handler.defaults.transformers",
    ),
}

logger = logging.getLogger("mooring.serving.host")

PR_SET_PDEATHSIG = 1
MAX_PACKET = 1 << 16
# A model that brings packages of its own starts from a fresh interpreter, since what is imported stays imported.
LAYERED_HOST = "mooring.serving.layered_host"


def main() -> None:
    """Serve fork requests until the front door closes the socket. Called as `python -m mooring.serving.zygote`."""
    control = socket.socket(fileno=int(sys.argv[1]))
    life = int(sys.argv[2])
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # A terminal's Ctrl-C goes to the whole group; only the front door decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in PRELOADED[Backend(sys.argv[3])]:
        with contextlib.suppress(ModuleNotFoundError):  # an image without transformers still serves what it can
            importlib.import_module(name)
    # Everything imported so far lives for ever: keep the collector from touching, and so copying, its pages.
    gc.collect()
    gc.freeze()
    Zygote(control, life, process_variables()).serve()


class Zygote:
    """The fork server's loop and its children."""

    def __init__(self, control: socket.socket, life: int, variables: dict[str, str]) -> None:
        self._control = control
        self._life = life
        self._variables = variables
        self._selector = selectors.DefaultSelector()
        self._wakeup, wakeup_end = socket.socketpair()
        self._wakeup.setblocking(False)
        wakeup_end.setblocking(False)
        signal.set_wakeup_fd(wakeup_end.fileno(), warn_on_full_buffer=False)
        self._wakeup_end = wakeup_end
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        """Answer requests and report exits until the front door is gone."""
        self._selector.register(self._control, selectors.EVENT_READ, self._on_request)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._on_child)
        self._send({"event": "ready", "pid": os.getpid()})
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._control.send(json.dumps(message).encode())
        except OSError:
            sys.exit(0)  # the front door is gone, and so is the zygote's purpose

    def _on_request(self) -> None:
        packet = self._control.recv(MAX_PACKET)
        if not packet:
            sys.exit(0)
        request = json.loads(packet)
        address = Path(request["address"])
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(address))
        listener.listen(8)
        child = fork_beside_threads()
        if child == 0:
            self._become_host(listener, request)
        listener.close()
        self._send({"event": "forked", "ticket": request["ticket"], "pid": child})

    def _become_host(self, listener: socket.socket, request: dict[str, Any]) -> None:
        """In the child: let go of what belongs to the zygote and never return."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            self._wakeup.close()
            self._wakeup_end.close()
            self._control.close()
            if request["requirements"]:
                self._execute_layered(listener, request)
            terms = HostTerms(request["threads"], request["is_shared"], request["gpu_id"], self._variables)
            status = host.run(listener, self._life, terms)
        except BaseException:
            logger.exception("The host ends.")
        finally:
            # Not sys.exit: the zygote's own clean-up code must not run twice.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _execute_layered(self, listener: socket.socket, request: dict[str, Any]) -> None:
        """Become a fresh interpreter that installs the model's packages before it is a host. Never returns."""
        os.set_inheritable(listener.fileno(), True)
        os.set_inheritable(self._life, True)
        given = {"listener": listener.fileno(), "life": self._life, **request}
        command = [sys.executable, "-P", "-m", LAYERED_HOST, json.dumps(given)]
        os.execve(sys.executable, command, self._variables)  # noqa: S606 - an argument list, no shell

    def _on_child(self) -> None:
        self._wakeup.recv(4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            end_group(pid)
            self._send({"event": "exited", "pid": pid, "status": status})


if __name__ == "__main__":
    main()
