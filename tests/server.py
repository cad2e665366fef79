"""A server of files, which does as it is told."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Server:
    """Serves the files of a folder on the loopback interface, and notes what was asked for.

    Attributes:
        url: of the folder.
        asked: method, file and range (start, stop) of each request that came.
        sent: bytes of each answer, noted before it goes out.
        serving: file and port of the request that the calling thread answers.
        ranges: whether it knows of byte ranges; many simple servers do not.
        sizes: whether it tells how large a file is.
        failing: answers 500 to requests that this accepts, given method and range.
        cut: of these ranges' answers only the first half comes.
        patience: after half of a `cut` answer, seconds of silence before the connection ends.
    """

    folder: Path
    url: str = ""
    asked: list[tuple[str, str, tuple[int, int] | None]] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    serving: threading.local = field(default_factory=threading.local)
    ranges: bool = True
    sizes: bool = True
    failing: Callable[[str, tuple[int, int] | None], bool] = lambda method, span: False
    cut: Callable[[tuple[int, int] | None], bool] = lambda span: False
    patience: float = 0.0

    def gets(self, name: str) -> list[tuple[int, int] | None]:
        """The ranges of a file that were asked for, None where that was the whole."""
        return [span for method, path, span in self.asked if (method, path) == ("GET", name)]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms
    state: Server

    def do_HEAD(self) -> None:
        self.answer(None)

    def do_GET(self) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        self.answer((int(found[1]), int(found[2]) + 1) if found else None)

    def answer(self, span: tuple[int, int] | None) -> None:
        state, name = self.state, self.path.lstrip("/").partition("?")[0]
        state.asked.append((self.command, name, span))
        state.serving.name, state.serving.port = name, self.client_address[1]
        path = state.folder / name
        if state.failing(self.command, span):
            self.send_error(500)
            return
        if path.is_dir():
            links = "".join(f'<a href="{entry.name}">' for entry in path.iterdir())
            self.reply(200, {"Content-Type": "text/html"}, links.encode())
            return
        if not path.exists():
            self.send_error(404)
            return
        data, headers = path.read_bytes(), {}
        if span is not None and state.ranges:
            headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{len(data)}"
            self.reply(206, headers, data[slice(*span)], cut=state.cut(span))
        else:
            self.reply(200, headers, data, cut=state.cut(span))

    def reply(self, status: int, headers: dict[str, str], body: bytes, cut: bool = False) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if self.state.sizes:
            self.send_header("Content-Length", str(len(body)))
        if cut or not self.state.sizes:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command == "GET":
            self.state.sent.append(len(body))
            self.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                time.sleep(self.state.patience)

    def log_message(self, *args: Any) -> None:
        pass


class Listening(ThreadingHTTPServer):
    def handle_error(self, *args: Any) -> None:
        """Who asked has heard enough, and went."""


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve the files of a folder."""
    state = Server(folder)
    handler = type("StatefulHandler", (Handler,), {"state": state})
    with Listening(("127.0.0.1", 0), handler) as listening:
        state.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        listening.shutdown()
        thread.join()
