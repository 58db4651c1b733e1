"""HTTP servers on a free port of this machine, started and stopped around a block."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar, TypeVar


class QuietHandler(BaseHTTPRequestHandler):
    """Answers without a line of log for each request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass


class LocalServer(ThreadingHTTPServer):
    """A server of `handler` on 127.0.0.1 at a port that is free."""

    daemon_threads = True
    handler: ClassVar[type[QuietHandler]]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.handler)

    @property
    def url(self) -> str:
        """The address, without a slash at its end."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what some tests are about."""


S = TypeVar("S", bound=LocalServer)


@contextmanager
def running(server: S) -> Iterator[S]:
    """Answer requests while the block runs."""
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
