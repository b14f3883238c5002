"""ClickHouse: tokened inserts of polars frames, and queries that give polars frames.

Owns that an insert under a used token changes nothing, so a batch may be stored again and again. The engine is a
ClickHouse server, or chdb in this process (one process a directory, and one path a process), which is ClickHouse itself
without its server. Both have clickhouse-connect's client, and everything here is the same for both.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import clickhouse_connect
import numpy as np
import polars as pl
import pyarrow as pa
from clickhouse_connect.driver.exceptions import OperationalError

from schemas.tables import TABLES, VIEWS, Table

CONNECT_TIMEOUT_S = 10
ANSWER_TIMEOUT_S = 300
"""How long a server may keep silent: while it answers no byte of a query, or stores an insert."""


_kept = threading.local()
"""Memory that a thread writes its inserts into, again and again: fresh memory would have to be cleared each time."""

EngineAwayError = OperationalError
"""What the driver raises when no server answers."""


class Client(Protocol):
    """What we use of clickhouse_connect's client, be it for chdb or for a server."""

    def command(self, cmd: str, parameters: dict[str, Any] | None = None) -> Any: ...  # noqa: D102

    write_compression: Any

    def raw_insert(  # noqa: D102
        self, table: str, column_names: Sequence[str], insert_block: Any, settings: dict[str, Any], fmt: str
    ) -> Any: ...
    def query_df_arrow(self, query: str, parameters: dict[str, Any], *, dataframe_library: str) -> pl.DataFrame: ...  # noqa: D102
    def query_df_arrow_stream(  # noqa: D102
        self, query: str, parameters: dict[str, Any], *, dataframe_library: str
    ) -> AbstractContextManager[Iterable[pl.DataFrame]]: ...
    def close(self) -> None: ...  # noqa: D102


def open_embedded(path: Path) -> Client:
    """A client of the embedded engine over this directory, with the tables in place."""
    return _with_tables(clickhouse_connect.get_client(interface="chdb", path=str(path)))


def open_server(url: str, *, answers_within_s: int = ANSWER_TIMEOUT_S) -> Client:
    """A client of the server at http(s)://user:password@host:port/database, with the tables in place.

    Threads may share it, for it has no session. The database must be there already; without one it is the user's own.
    After a lost connection the client repeats a query once, but not an insert: that is for the caller, whose token lets
    it count once.
    """
    return _with_tables(
        clickhouse_connect.get_client(
            dsn=url,
            interface=urlsplit(url).scheme,
            connect_timeout=CONNECT_TIMEOUT_S,
            send_receive_timeout=answers_within_s,
            autogenerate_session_id=False,
        )
    )


def _with_tables(client: Client) -> Client:
    for made in (*TABLES, *VIEWS):
        client.command(made.ddl())
    return client


def open_clickhouse(url: str, *, answers_within_s: int = ANSWER_TIMEOUT_S) -> Client:
    """A client for a URL: `http://user:password@host:8123/database`, or `chdb:/path` for the embedded engine."""
    if url.startswith("chdb:"):
        return open_embedded(Path(url.removeprefix("chdb:")))
    return open_server(url, answers_within_s=answers_within_s)


class Clients:
    """Clients for queries at the same time. Each is lent to one thread at a time, and opened when none is free.

    The calls of one client wait for each other; those of several do not, on a server nor in the embedded engine.
    """

    def __init__(self, open_client: Callable[[], Client]) -> None:
        self._open = open_client
        self._free: deque[Client] = deque()

    @contextmanager
    def lent(self) -> Iterator[Callable[[], Client]]:
        """What gives a client for as long as this lasts, the same one each time; only the first time takes one."""
        taken: list[Client] = []

        def client() -> Client:
            if not taken:
                try:
                    taken.append(self._free.pop())
                except IndexError:
                    taken.append(self._open())
            return taken[0]

        try:
            yield client
        finally:
            self._free.extend(taken)

    def close(self) -> None:
        """Close the clients that are not lent."""
        while self._free:
            self._free.pop().close()


def insert(client: Client, table: Table, frame: pl.DataFrame, token: str) -> None:
    """Insert the rows of a frame that has the table's columns. Under a token used before, nothing happens."""
    if frame.is_empty():
        return
    settings = {
        "insert_deduplication_token": token,
        "deduplicate_insert": "enable",
        "async_insert": 0,
        "optimize_on_insert": 0,  # a batch has one row a key already; merging it again takes longer than the insert
    }
    rows = _with_maps(frame.to_arrow(), table)
    client.raw_insert(table.name, rows.schema.names, _arrow_file(rows, client.write_compression), settings, "Arrow")


def query(client: Client, sql: str, **parameters: Any) -> pl.DataFrame:
    """The rows that a SELECT gives; `{name:Type}` in it stands for a parameter."""
    return client.query_df_arrow(sql, parameters=parameters, dataframe_library="polars")


def stream(client: Client, sql: str, *, rows_min: int, **parameters: Any) -> Iterator[pl.DataFrame]:
    """The rows that a SELECT gives, so many at a time. The embedded engine makes the whole result first."""
    with client.query_df_arrow_stream(sql, parameters=parameters, dataframe_library="polars") as blocks:
        gathered: list[pl.DataFrame] = []
        for block in blocks:
            gathered.append(block)
            if sum(map(len, gathered)) >= rows_min:
                yield pl.concat(gathered)
                gathered = []
        if gathered:
            yield pl.concat(gathered)


def _arrow_file(rows: pa.Table, compression: Any) -> Any:
    """The rows in Arrow's file format, compressed for a server as its client has it.

    Not compressed, they are written once, into memory of the right size; the client's own way copies them four times.
    """
    if compression in {"lz4", "zstd"}:
        sink = pa.BufferOutputStream()
        with pa.RecordBatchFileWriter(
            sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression=compression)
        ) as file:
            file.write(rows)
        return sink.getvalue()
    size = pa.MockOutputStream()
    with pa.RecordBatchFileWriter(size, rows.schema) as file:
        file.write(rows)
    if size.size() > len(getattr(_kept, "memory", b"")):
        _kept.memory = np.empty(size.size() * 5 // 4, np.uint8)
    memory = _kept.memory[: size.size()]
    with pa.RecordBatchFileWriter(pa.FixedSizeBufferWriter(pa.py_buffer(memory)), rows.schema) as file:
        file.write(rows)
    return memory.data


def _with_maps(rows: pa.Table, table: Table) -> pa.Table:
    """Lists of (key, value) as the Arrow maps that a Map column needs."""
    for name, kind in table.columns.items():
        if kind.startswith("Map("):
            combined: Any = rows.column(name).combine_chunks()
            pairs = combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined
            inner = pairs.flatten()
            text = [inner.field(part).cast(pa.string()) for part in ("key", "value")]
            offsets = pa.compute.subtract(pairs.offsets, pairs.offsets[0]).cast(pa.int32())
            place = rows.schema.get_field_index(name)
            rows = rows.set_column(place, name, pa.MapArray.from_arrays(offsets, *text))
    return rows
