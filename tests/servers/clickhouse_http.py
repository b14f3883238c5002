"""ClickHouse's HTTP interface over chdb: the part of it that clickhouse-connect uses, and faults on request.

Owns that a statement is executed only when all of it has come, and that none is cut short when the server stops.
Answers are never compressed, which HTTP allows. Not here: users, sessions, external tables, progress headers, query logs.
"""

import gzip
import json
import re
import socket
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qsl, urlsplit

import chdb
import lz4.frame
import orjson

from tests.servers.clickhouse_engine import Engine, Request

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FINISH_TIMEOUT_S = 30.0

STATUSES = {36: 400, 47: 404, 60: 404, 62: 400, 81: 404, 115: 404, 164: 403, 241: 500, 457: 400}
"""HTTP status by ClickHouse's error code, as its server maps them; 500 for the others."""


@dataclass
class Faults:
    """What shall go wrong: rules of the form {kind, matching, count, seconds}. A rule without a count stays."""

    rules: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, kind: str, sql: bytes) -> dict[str, Any] | None:
        """The first rule of this kind that this statement meets, which it uses up by one. Backticks do not count."""
        sql = sql.replace(b"`", b"")
        with self.lock:
            for rule in self.rules:
                if rule["kind"] == kind and rule["matching"].encode() in sql and rule.get("count", 1) > 0:
                    if "count" in rule:
                        rule["count"] -= 1
                    return rule
        return None


class Server(ThreadingHTTPServer):
    """A thread a connection. Closing waits for the statements that run, and lets no other one begin."""

    request_queue_size = 128
    daemon_threads = True  # a client may keep an idle connection for ever

    def __init__(self, directory: Path, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.engine = Engine(directory)
        self.faults = Faults()
        self.running = 0
        self.closing = False
        self.changed = threading.Condition()
        self.url = f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The time from a statement to the end of its answer. Raises ConnectionAbortedError when the server closes."""
        with self.changed:
            if self.closing:
                raise ConnectionAbortedError
            self.running += 1
        try:
            yield
        finally:
            with self.changed:
                self.running -= 1
                self.changed.notify_all()

    def finish(self) -> None:
        """Let the running statements end and be answered, and close the engine."""
        self.server_close()
        with self.changed:
            self.closing = True
            self.changed.wait_for(lambda: not self.running, FINISH_TIMEOUT_S)
        self.engine.keeper.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that ended: clients may go, and hanging up is what we do on request."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        """Tell that the server lives, or answer a statement that changes nothing."""
        if "query=" in urlsplit(self.path).query:
            self._answer(read_only=True)
        else:
            self._send(200, b"Ok.\n", {})

    def do_POST(self) -> None:
        """Answer a statement."""
        self._answer(read_only=False)

    def do_PUT(self) -> None:
        """Take one more rule of what shall go wrong."""
        self.server.faults.rules.append(orjson.loads(self._body()))
        self._send(200, b"", {})

    def do_DELETE(self) -> None:
        """Forget the rules of what shall go wrong."""
        self.server.faults.rules.clear()
        self._send(200, b"", {})

    def _answer(self, read_only: bool) -> None:
        body = self._body()
        parameters = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("multipart/form-data"):
            parameters |= _form(body, kind.partition("boundary=")[2].strip('"'))
            body = b""
        request = Request.of(parameters, body, read_only)
        if rule := self.server.faults.take("slow", request.sql):
            time.sleep(rule["seconds"])
        if self.server.faults.take("refuse", request.sql):
            self._send(503, b"Refused, as asked for.\n", {})
            return
        with self.server.turn():
            self._execute(request, {"X-ClickHouse-Query-Id": parameters.get("query_id") or str(uuid.uuid4())})

    def _execute(self, request: Request, headers: dict[str, str]) -> None:
        try:
            answer = self.server.engine.execute(request)
        except (chdb.ChdbError, RuntimeError, ValueError) as error:
            found = re.search(r"Code: (\d+)", str(error))
            code = int(found[1]) if found else 1002  # UNKNOWN_EXCEPTION
            headers["X-ClickHouse-Exception-Code"] = str(code)
            self._send(STATUSES.get(code, 500), f"{error}\n".encode(), headers)
            return
        if self.server.faults.take("lose", request.sql):
            self.connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        headers["X-ClickHouse-Summary"] = json.dumps(answer.summary)
        headers["X-ClickHouse-Timezone"] = self.server.engine.timezone
        if answer.format:
            headers["X-ClickHouse-Format"] = answer.format
        self._send(200, answer.body, headers)

    def _body(self) -> bytes:
        """The whole body of a request. Raises ConnectionAbortedError where its sender went before the end of it."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            pieces = []
            while size := int(self.rfile.readline().partition(b";")[0] or self._gone(), 16):
                pieces.append(self._read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(pieces)
        else:
            body = self._read(int(self.headers.get("Content-Length", 0)))
        return _decompressed(body, self.headers.get("Content-Encoding", "identity"))

    def _read(self, size: int) -> bytes:
        read = self.rfile.read(size)
        return read if len(read) == size else self._gone()

    def _gone(self) -> NoReturn:
        raise ConnectionAbortedError

    def _send(self, status: int, body: bytes | memoryview, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing of single requests."""


def _decompressed(body: bytes, encoding: str) -> bytes:
    """A body without its compression. There may be several frames in it, one for each block of rows."""
    match encoding:
        case "lz4":
            return bytes(lz4.frame.open(BytesIO(body)).read())
        case "zstd":
            return bytes(zstd.decompress(body))
        case "gzip":
            return gzip.decompress(body)
        case "deflate":
            return zlib.decompress(body)
    return body


def _form(body: bytes, boundary: str) -> dict[str, str]:
    """The fields of a form, which long parameters come in."""
    fields = {}
    for part in body.split(b"--" + boundary.encode())[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        if name := re.search(rb'name="([^"]*)"', head):
            fields[name[1].decode()] = value.removesuffix(b"\r\n").decode()
    return fields
