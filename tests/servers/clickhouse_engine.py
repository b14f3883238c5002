"""Statements as they come over ClickHouse's HTTP interface, executed by chdb.

Owns that each statement stands alone, with its own database, settings and parameters: it gets a fresh handle of the
engine, which takes a quarter of a millisecond. A result is made whole before its first byte is handed out, so an error
never comes in the middle of one.
"""

import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chdb

NOT_SETTINGS = {
    "query", "database", "default_format", "user", "password", "quota_key", "role", "session_id", "session_timeout",
    "session_check", "query_id", "compress", "decompress", "buffer_size", "wait_end_of_query", "client_protocol_version",
}  # fmt: skip
"""Parameters that the HTTP interface takes for itself. All others, but for `param_*`, are settings."""

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
