"""Our driver over HTTP: what holds for the embedded engine holds for a server, also when it is killed or falls silent."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import clickhouse_connect
import httpx
import polars as pl
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from schemas.tables import DUPLICATES, EVENTS, PROGRESS, REJECTIONS, ROLLUPS, TABLES
from stores.clickhouse import Client, insert, open_server, query
from tests.servers import plain_http
from tests.servers.clickhouse import ClickHouse

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    with ClickHouse(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture
def client(server: ClickHouse) -> Iterator[Client]:
    """A client of the server, which has our tables, all of them empty, and no faults."""
    server.heal()
    opened = open_server(server.url)
    for table in TABLES:
        opened.command(f"DROP TABLE {table.name} SYNC")
        opened.command(table.ddl())
    yield opened
    opened.close()


def rollup(subject: str, count: int, total: str) -> pl.DataFrame:
    row = {
        "tenant": "default", "meter": "m", "subject": subject, "dimensions": [{"key": "a", "value": "b"}],
        "window_start": datetime(2013, 1, 31, 23, tzinfo=UTC), "epoch": 3, "count": count, "sum": total,
        "min": None, "max": total, "uniques": [subject], "latest": [],
    }  # fmt: skip
    schema = {**ROLLUPS.frame, **dict.fromkeys(("sum", "min", "max"), pl.String)}
    return pl.DataFrame([row], schema=schema).cast(ROLLUPS.frame)


def duplicates(count: int, source: str = "/s") -> pl.DataFrame:
    numbers = pl.DataFrame({"offset": range(count)})
    return numbers.select(
        tenant=pl.lit("default"), source=pl.lit(source), id=pl.col("offset").cast(pl.String), log_id=pl.lit("x"), partition=0,
        offset="offset", line=0, appended_at=NOON, hash_high=pl.col("offset") + 2**63, hash_low="offset",
    ).cast(DUPLICATES.frame)  # fmt: skip


def count_of(client: Client, table: str) -> int:
    return int(query(client, f"SELECT count() AS n FROM {table}")["n"].item())


def test_a_token_counts_once_and_deltas_add_up(client: Client) -> None:
    """The same token again changes nothing; another one adds to the same key, exactly, to the last of 38 digits."""
    most = "99999999999999999999999999999.999999999"
    insert(client, ROLLUPS, rollup("x", 1, "0.000000001"), "t1")
    insert(client, ROLLUPS, rollup("x", 1, "0.000000001"), "t1")
    insert(client, ROLLUPS, rollup("x", 2, most), "t2")
    client.command("OPTIMIZE TABLE rollups FINAL")
    columns = "count, toString(max) AS max, min, dimensions, dimensions['a'] AS a, uniques"
    row = query(client, f"SELECT {columns} FROM rollups").row(0, named=True)
    assert row == {"count": 3, "max": most, "min": None, "dimensions": {"a": "b"}, "a": "b", "uniques": ["x"]}


def test_what_was_acknowledged_outlives_a_kill_and_so_does_its_token(client: Client, server: ClickHouse) -> None:
    """After SIGKILL the same client finds the rows, and the token is still used."""
    insert(client, DUPLICATES, duplicates(3), "t1")
    pid, url = server.pid, server.url
    server.kill()
    with pytest.raises(OperationalError):
        insert(client, DUPLICATES, duplicates(3), "t2")
    server.start()
    assert (server.pid != pid, server.url) == (True, url)
    insert(client, DUPLICATES, duplicates(3), "t1")
    assert count_of(client, "duplicates") == 3
    insert(client, DUPLICATES, duplicates(3), "t2")
    assert count_of(client, "duplicates") == 6


def test_a_token_holds_for_an_insert_of_many_blocks(client: Client) -> None:
    """An insert that the engine cuts in several blocks counts once as well."""
    rows = duplicates(300_000)
    insert(client, DUPLICATES, rows, "t1")
    insert(client, DUPLICATES, rows, "t1")
    assert count_of(client, "duplicates") == 300_000
    stored = query(client, "SELECT hash_high, hash_low FROM duplicates ORDER BY offset")
    assert stored.equals(rows.select("hash_high", "hash_low"))


def test_bytes_survive(client: Client) -> None:
    """A rejected line is stored byte for byte, whatever its bytes are."""
    raw = bytes(range(256)) + b"\nINSERT INTO x FORMAT Arrow\n"
    row = {"reason": "not_utf8", "detail": "", "raw": raw, "partition": 1, "offset": 2, "line": 3, "appended_at": NOON}
    insert(client, REJECTIONS, pl.DataFrame([row], schema=REJECTIONS.frame), "t")
    assert query(client, "SELECT hex(raw) AS raw FROM rejections")["raw"].item() == raw.hex().upper()


def test_an_empty_frame_is_no_insert(client: Client) -> None:
    """A batch of punctuation alone stores its progress and nothing else; no rows have columns all the same."""
    insert(client, PROGRESS, pl.DataFrame(schema=PROGRESS.frame), "t")
    assert count_of(client, "progress") == 0
    assert query(client, "SELECT log_id, epoch FROM progress").columns == ["log_id", "epoch"]


@pytest.mark.parametrize(
    "text",
    ["", "it's", '"`', "\\", "\\'; DROP TABLE events --", "{a:String}", "%s %(a)s", "tab\tline\nend\r", "\0", "Ünï 🚀", "a&b=c+d%20?#",
     "FORMAT JSON", "x" * 100_000, "\r\n--boundary\r\n" * 1000],
    ids=lambda text: repr(text[:16]),
)  # fmt: skip
def test_a_parameter_stays_text(client: Client, text: str) -> None:
    """Whatever stands in a parameter comes back as it was, alone and in a list; long ones come in a form."""
    found = query(
        client, "SELECT {a:String} AS a, {b:Array(String)} AS b, {c:UInt64} AS c", a=text, b=[text, "x"], c=2**64 - 1
    )
    assert found.row(0) == (text, [text, "x"], 2**64 - 1)


def test_a_time_is_a_parameter(client: Client) -> None:
    """An instant compares equal to the one stored."""
    insert(client, DUPLICATES, duplicates(2), "t")
    sql = "SELECT count() AS n FROM duplicates WHERE appended_at = {at:DateTime64(3, 'UTC')}"
    assert query(client, sql, at=NOON)["n"].item() == 2


@pytest.mark.parametrize(
    ("sql", "code", "message"),
    [
        ("SELECT * FROM nowhere", 60, "Unknown table expression identifier 'nowhere'"),
        ("SELEC 1", 62, "Syntax error"),
        ("SELECT throwIf(number = 3) FROM numbers(9)", 395, "Value passed to 'throwIf'"),
    ],
)
def test_an_error_is_the_engines_own(client: Client, sql: str, code: int, message: str) -> None:
    """ClickHouse's code and words arrive, for a query and for a command."""
    for ask in (query, lambda client, sql: client.command(sql)):
        with pytest.raises(DatabaseError, match=message) as error:
            ask(client, sql)
        assert error.value.code == code


def test_settings_belong_to_one_statement(server: ClickHouse, client: Client) -> None:
    """A setting holds for its statement, a wrong one is an error, and the next statement knows nothing of either."""
    plain = clickhouse_connect.get_client(dsn=server.url, autogenerate_session_id=False)
    assert plain.command("SELECT getSetting('max_threads')", settings={"max_threads": 7}) == 7
    assert plain.command("SELECT getSetting('max_threads')") != 7
    insert(client, DUPLICATES, duplicates(2), "t")
    plain.command("ALTER TABLE duplicates DELETE WHERE id = '1'", settings={"mutations_sync": 2})
    plain.command("INSERT INTO duplicates SELECT * REPLACE ('copy' AS id) FROM duplicates")
    assert query(client, "SELECT id FROM duplicates ORDER BY id")["id"].to_list() == ["0", "copy"]
    answer = plain_http.post(server.url, params={"no_such_setting": "1"}, content="SELECT 1")
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (404, "115")
    answer = plain_http.get(server.url, params={"query": "DROP TABLE events"})
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "164")


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_rows_of_python_come_and_go(server: ClickHouse, client: Client, compress: bool | str) -> None:
    """The client's other ways work too: rows of Python values, sent in blocks that may be compressed."""
    plain = clickhouse_connect.get_client(dsn=server.url, compress=compress, autogenerate_session_id=False)
    rows = [
        ("default", f"/{n}", "it's\n", "log", 0, n, 0, NOON.replace(tzinfo=None), n, 2**64 - 1) for n in range(1000)
    ]
    plain.insert("duplicates", rows, column_names=list(DUPLICATES.columns))
    found = plain.query("SELECT * FROM duplicates ORDER BY offset")
    assert [row[:7] for row in found.result_rows] == [row[:7] for row in rows]
    assert plain.query("SELECT id FROM duplicates WHERE false").result_rows == []
    plain.close()


def test_an_insert_whose_answer_is_lost_is_stored(server: ClickHouse, client: Client) -> None:
    """Silence is an error though the rows are there, and the token lets them be sent again. Other tables go on."""
    server.lose_answers(1, matching="INSERT INTO rollups")
    insert(client, DUPLICATES, duplicates(1), "t1")
    with pytest.raises(OperationalError):
        insert(client, ROLLUPS, rollup("x", 1, "1"), "t1")
    insert(client, ROLLUPS, rollup("x", 1, "1"), "t1")
    assert query(client, "SELECT sum(count) AS n FROM rollups")["n"].item() == 1


def test_a_query_whose_answer_is_lost_is_asked_again(server: ClickHouse, client: Client) -> None:
    """The client itself repeats a query, once."""
    server.lose_answers(1, matching="SELECT")
    assert query(client, "SELECT 1 AS a")["a"].item() == 1
    server.lose_answers(3, matching="SELECT")
    with pytest.raises(OperationalError):
        query(client, "SELECT 1 AS a")


def test_what_is_refused_is_not_stored(server: ClickHouse, client: Client) -> None:
    """Status 503 is an error for an insert; the next one comes through."""
    server.refuse(1, matching="duplicates")
    with pytest.raises(OperationalError, match="503"):
        insert(client, DUPLICATES, duplicates(1), "t1")
    assert count_of(client, "duplicates") == 0
    insert(client, DUPLICATES, duplicates(1), "t1")
    assert count_of(client, "duplicates") == 1


def test_a_slow_statement_holds_up_no_other(server: ClickHouse, client: Client) -> None:
    """While one statement waits, others are answered."""
    server.slow_down(1.0, matching="slow")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(query, client, "SELECT 'slow' AS a")
        assert query(client, "SELECT 1 AS a")["a"].item() == 1
        assert not waiting.done()
        assert waiting.result()["a"].item() == "slow"


def test_a_frozen_server_answers_when_it_is_thawed(server: ClickHouse, client: Client) -> None:
    """A paused server keeps its connections: the answer comes late, and is right."""
    server.pause()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(query, client, "SELECT 1 AS a")
        with pytest.raises(httpx.ReadTimeout):
            plain_http.get(f"{server.url}/ping", timeout=0.3)
        server.resume()
        assert waiting.result()["a"].item() == 1


def test_threads_share_a_client(client: Client) -> None:
    """Four threads insert at once, each batch twice, and every row is there once."""

    def store(number: int) -> None:
        for batch in range(5):
            for _ in range(2):
                insert(client, DUPLICATES, duplicates(1000, f"/{number}"), f"{number}-{batch}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(store, range(4)))
    found = query(client, "SELECT source, count() AS n FROM duplicates GROUP BY source ORDER BY source")
    assert found.rows() == [(f"/{n}", 5000) for n in range(4)]


def test_half_an_insert_is_none(server: ClickHouse, client: Client) -> None:
    """Where the sender goes in the middle of its rows, none of them is stored."""
    row = b"default\t/s\t1\t0\t1\t0\t2026-01-01 12:00:00.000\t1\t1\n"
    head = b"POST /?query=INSERT+INTO+duplicates+FORMAT+TSV HTTP/1.1\r\nHost: x\r\n"
    for framing, part in (
        (b"Content-Length: 999", row),
        (b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n" % (len(row), row)),
    ):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head + framing + b"\r\n\r\n" + part)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100) == b""
    assert count_of(client, "duplicates") == 0


def test_a_stopped_server_answers_first(tmp_path: Path) -> None:
    """SIGTERM lets a running statement end, and its answer arrives."""
    with ClickHouse(tmp_path) as server, ThreadPoolExecutor(1) as pool:
        client = open_server(server.url)
        waiting = pool.submit(query, client, "SELECT sleep(1) AS a")
        time.sleep(0.3)
        server.stop()
        assert waiting.result()["a"].item() == 0


def test_a_stopped_server_starts_again(tmp_path: Path) -> None:
    """A database in the URL is used; after SIGTERM and a new start the rows are there, and the port is the same."""
    server = ClickHouse(tmp_path)
    with server:
        open_server(server.url).command("CREATE DATABASE metering")
        insert(open_server(f"{server.url.replace('//', '//u:p%40@')}/metering"), DUPLICATES, duplicates(1), "t")
        assert plain_http.get(f"{server.url}/ping").text == "Ok.\n"
        port = server.port
    with server:
        client = open_server(server.url)
        assert (count_of(client, "metering.duplicates"), count_of(client, EVENTS.name), server.port) == (1, 0, port)
