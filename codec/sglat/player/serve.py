"""A server for one page on the loopback address; nothing else is served, and nothing is written."""

from __future__ import annotations

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from sglat.errors import UsageError
from sglat.files import reason_of

LOOPBACK: Final = "127.0.0.1"
_HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


class PageServer:
    """Serves a page until it is closed.

    Args:
        page: HTML.
        port: 0 takes a free one.

    Raises:
        UsageError: `bad-port`: the port is taken.
    """

    def __init__(self, page: str, *, port: int = 0) -> None:
        try:
            self._server = ThreadingHTTPServer((LOOPBACK, port), _handler(page.encode()))
        except OSError as error:
            raise UsageError(
                "bad-port", f"port {port}: {reason_of(error)}; choose another by --port"
            ) from error
        self.port: int = self._server.server_address[1]

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{LOOPBACK}:{self.port}/"

    def serve(self) -> None:
        """Answer requests until `stop` or an interruption."""
        self._server.serve_forever(poll_interval=0.2)

    def stop(self) -> None:
        """End `serve`, from another thread."""
        self._server.shutdown()

    def close(self) -> None:
        """Free the port."""
        self._server.server_close()


def _handler(page: bytes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "sglat", ""
        timeout = 30  # seconds; a request that does not come ends its thread

        def do_GET(self) -> None:
            self._answer(has_body=True)

        def do_HEAD(self) -> None:
            self._answer(has_body=False)

        def _answer(self, *, has_body: bool) -> None:
            # another name for this address may be a foreign page that wants to read the file
            host = self.headers.get("Host", "").rpartition(":")[0]
            if host not in (LOOPBACK, "localhost"):
                self.send_error(HTTPStatus.FORBIDDEN)
                return
            if self.path.partition("?")[0] != "/":
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            self.send_response(HTTPStatus.OK)
            for name, value in _HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            if has_body:
                self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
