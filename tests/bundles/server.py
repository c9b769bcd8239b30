"""A small HTTP server on this machine that behaves and misbehaves as a test asks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """How the server answers; counts what it did."""

    content: bytes
    cuts: list[int] = field(default_factory=list)
    """The next answers end after this many bytes each."""
    knows_ranges: bool = True
    names_length: bool = True
    statuses: list[int] = field(default_factory=list)
    """The next answers are these errors."""
    redirect_to: str = ""
    delay: threading.Event | None = None
    """Answers wait for it."""
    requests: list[str] = field(default_factory=list)
    """The `Range` of each request, `whole` for none."""
    sent_bytes: int = 0


@contextmanager
def serve(behaviour: Behaviour) -> Iterator[str]:
    """Run the server and give its address, without a path."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            answer(self, behaviour)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def answer(handler: BaseHTTPRequestHandler, behaviour: Behaviour) -> None:
    """Answer one request."""
    if handler.path == "/moved":
        handler.send_response(302)
        handler.send_header("Location", behaviour.redirect_to)
        handler.end_headers()
        return
    asked = handler.headers.get("Range")
    behaviour.requests.append(asked or "whole")
    if behaviour.delay:
        behaviour.delay.wait(10)
    if behaviour.statuses:
        handler.send_error(behaviour.statuses.pop(0))
        return
    start = 0
    if asked and behaviour.knows_ranges:
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(behaviour.content):
            handler.send_error(416)
            return
        handler.send_response(206)
        last = len(behaviour.content) - 1
        handler.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
    else:
        handler.send_response(200)
    body = behaviour.content[start:]
    if behaviour.names_length:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if behaviour.cuts:
        body = body[: behaviour.cuts.pop(0)]
    behaviour.sent_bytes += len(body)
    handler.wfile.write(body)
    handler.close_connection = True
