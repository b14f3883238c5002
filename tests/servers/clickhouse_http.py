"""ClickHouse's HTTP interface over chdb: the part of it that clickhouse-connect uses, and faults on request.

Owns that each request is a statement of its own, under its own settings: it gets a fresh handle of the engine, which
takes a quarter of a millisecond. Answers are never compressed, which HTTP allows. Not here: users, sessions, external
tables, progress headers. Its limits against the real server: a result is made whole before its first byte is sent, so
there is never an error in the middle of one, and `chdb` flushes no system tables.
"""

import gzip
import json
import re
import socket
import sys
import tempfile
import threading
import time
import uuid
import zlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import chdb
import lz4.frame
import orjson

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NOT_SETTINGS = {
    "query", "database", "default_format", "user", "password", "quota_key", "role", "session_id", "session_timeout",
    "session_check", "query_id", "compress", "decompress", "buffer_size", "wait_end_of_query", "client_protocol_version",
}  # fmt: skip
"""Parameters that the HTTP interface takes for itself. All others, but for `param_*`, are settings."""

STATUSES = {36: 400, 47: 404, 60: 404, 62: 400, 81: 404, 115: 404, 164: 403, 241: 500, 457: 400}
"""HTTP status by ClickHouse's error code, as its server maps them; 500 for the others."""

_INSERT_HEAD = re.compile(
    rb"\s*INSERT\s+INTO\s+(?:TABLE\s+)?(?P<into>(?:`[^`]+`|[\w.])+\s*(?:\((?:`[^`]+`|[^()`])*\))?)\s*FORMAT\s+(?P<format>(?!VALUES)\w+)\s*?(?:\n|\Z)",
    re.IGNORECASE,
)
_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)", re.IGNORECASE)


@dataclass
class Request:
    """A statement with what came beside it. `data` are the rows of an INSERT in a format, which are no text."""

    sql: bytes
    database: str | None = None
    settings: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    insert: tuple[str, str] | None = None
    data: memoryview | bytes = b""

    @classmethod
    def of(cls, parameters: dict[str, str], body: bytes, read_only: bool) -> "Request":
        """What was asked by these parameters and this body, read as ClickHouse reads them: first one, then the other."""
        head = parameters.get("query", "").encode()
        settings = {k: v for k, v in parameters.items() if k not in NOT_SETTINGS and not k.startswith("param_")}
        if read_only:
            settings["readonly"] = "2"
        values = {k.removeprefix("param_"): v for k, v in parameters.items() if k.startswith("param_")}
        request = cls(head, parameters.get("database"), settings, values)
        if match := _INSERT_HEAD.match(head or body):
            request.sql = match[0].strip()
            request.insert = (match["into"].decode(), match["format"].decode())
            request.data = body if head else memoryview(body)[match.end() :]
        else:
            request.sql = b"\n".join(part for part in (head, body) if part)
        return request


@dataclass(frozen=True)
class Answer:
    """A result: its bytes, the format they are in where there is one, and what was read."""

    body: memoryview
    format: str | None
    summary: dict[str, str]
    result: Any  # owns the bytes


@dataclass
class Engine:
    """The engine over a directory. The first handle keeps it open; each statement has another one."""

    directory: Path

    def __post_init__(self) -> None:
        self.keeper = self._connect()
        self.timezone = self.keeper.query("SELECT timezone()", "TabSeparated").bytes().decode().strip()
        self.uploads = self.directory / "uploads"
        self.uploads.mkdir(exist_ok=True)
        for left_by_a_kill in self.uploads.iterdir():
            left_by_a_kill.unlink()

    def execute(self, request: Request) -> Answer:
        """The answer to a statement. Raises chdb.ChdbError with the engine's own message."""
        handle = self._connect()
        try:
            if request.database:
                handle.query(f"USE {_quoted(request.database, '`')}")
            if request.settings:
                handle.query("SET " + ", ".join(f"{k} = {_quoted(v)}" for k, v in request.settings.items()))
            return self._insert(handle, request) if request.insert else _select(handle, request)
        finally:
            handle.close()

    def _connect(self) -> Any:
        connect: Any = chdb.connect  # has no types
        return connect(str(self.directory))

    def _insert(self, handle: Any, request: Request) -> Answer:
        """Insert rows by way of a file, which is quicker than the engine's own way to take them in pieces."""
        assert request.insert
        into, form = request.insert
        with tempfile.NamedTemporaryFile(dir=self.uploads, buffering=0) as file:
            file.write(request.data)
            sql = f"INSERT INTO {into} FROM INFILE {_quoted(file.name)} FORMAT {form}"
            result = handle.query(sql, "TabSeparated", params=request.parameters)
        written = {"written_rows": str(result.rows_read()), "written_bytes": str(result.bytes_read())}
        return Answer(memoryview(b""), None, written, result)


def _select(handle: Any, request: Request) -> Answer:
    """Any statement but an INSERT of given rows. Without a FORMAT it answers in TabSeparated, as ClickHouse does.

    Whether a statement has a result at all is seen by the line of names that every result has.
    """
    formats = _FORMAT.findall(request.sql)
    default = "TabSeparated" if formats else "TabSeparatedWithNames"
    result = handle.query(request.sql, default, params=request.parameters)
    body = result.get_memview().view() if result.size() else memoryview(b"")
    summary = {"read_rows": str(result.rows_read()), "read_bytes": str(result.bytes_read())}
    if formats:
        return Answer(body, formats[-1].decode(), summary, result)
    names = bytes(body[: 1 << 16]).find(b"\n") + 1
    return Answer(body[names:], "TabSeparated" if names else None, summary, result)


def _quoted(text: str, mark: str = "'") -> str:
    return mark + text.replace("\\", "\\\\").replace(mark, "\\" + mark) + mark


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

    def execute(self, request: Request) -> Answer:
        """The engine's answer. Raises ConnectionAbortedError when the server closes."""
        with self.changed:
            if self.closing:
                raise ConnectionAbortedError
            self.running += 1
        try:
            return self.engine.execute(request)
        finally:
            with self.changed:
                self.running -= 1
                self.changed.notify_all()

    def finish(self) -> None:
        """Let the running statements end, and close the engine."""
        self.server_close()
        with self.changed:
            self.closing = True
            self.changed.wait_for(lambda: not self.running)
        self.engine.keeper.close()


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
        headers = {"X-ClickHouse-Query-Id": parameters.get("query_id") or str(uuid.uuid4())}
        try:
            answer = self.server.execute(request)
        except ConnectionAbortedError:
            self._hang_up()
            return
        except (chdb.ChdbError, RuntimeError, ValueError) as error:
            found = re.search(r"Code: (\d+)", str(error))
            code = int(found[1]) if found else 1002  # UNKNOWN_EXCEPTION
            self._send(
                STATUSES.get(code, 500), f"{error}\n".encode(), headers | {"X-ClickHouse-Exception-Code": str(code)}
            )
            return
        if self.server.faults.take("lose", request.sql):
            self._hang_up()
            return
        headers |= {
            "X-ClickHouse-Summary": json.dumps(answer.summary),
            "X-ClickHouse-Timezone": self.server.engine.timezone,
        }
        if answer.format:
            headers["X-ClickHouse-Format"] = answer.format
        self._send(200, answer.body, headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            pieces = []
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
            body = b"".join(pieces)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return _decompressed(body, self.headers.get("Content-Encoding", "identity"))

    def _send(self, status: int, body: bytes | memoryview, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

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
