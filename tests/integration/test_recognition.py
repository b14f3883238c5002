"""Revenue over time, in a real PostgreSQL: what is unearned in the books is what is scheduled and not recognised."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import polars as pl
import pytest
import sqlalchemy as sa

from invoicing.ledger.store import OtherContentError
from invoicing.periods.store import close_period
from invoicing.recognition import store
from invoicing.recognition.rows import LINES
from invoicing.recognition.schedules import SERVICE
from stores.postgres import tenant_transaction
from tests.simulation.books import NOW, balances, post

START, END = date(2026, 6, 15), date(2026, 10, 13)
UNEARNED, REVENUE = 2200, 4000


def lines(*rows: tuple[str, int], customer: str = "UA", tenant: str = "default") -> pl.DataFrame:
    """Lines of line id and minor units over the published days."""
    made = [(tenant, f"invoice of {line}", line, customer, "USD", minor, START, END, "seats") for line, minor in rows]
    return pl.DataFrame(made, schema=LINES, orient="row")


def schedule(connection: sa.Connection, frame: pl.DataFrame, method: str = "day") -> int:
    return store.schedule_lines(connection, frame, method, scheduled_at=NOW)


def billed(connection: sa.Connection, frame: pl.DataFrame, method: str = "day") -> None:
    """Schedule lines, and post their invoices: receivable to unearned revenue."""
    assert schedule(connection, frame, method) == frame.height
    for tenant, line_id, customer, minor in frame.select("tenant", "line_id", "customer", "net_minor").iter_rows():
        post(connection, "P03", line_id, START, customer=customer, tenant=tenant, dimension="seats", total=minor,
             advance=minor)  # fmt: skip


def taken(
    connection: sa.Connection, document: str, minor: int, as_of: date = date(2026, 9, 5), line: str = "a"
) -> tuple[object, ...]:
    note = pl.DataFrame({"line_id": [line], "credit_minor": [minor]})
    return store.reverse_deferred(connection, "default", note, document_id=document, as_of=as_of, at=NOW).row(0)


def changed(connection: sa.Connection, minor: int, method: str = "even_months", as_of: date = date(2026, 8, 3)) -> None:
    bounds = [datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (START, END)]
    line = pl.DataFrame([("a", minor, *bounds, method)], schema=SERVICE, orient="row")
    store.change_lines(connection, "default", line, reason="more seats", as_of=as_of, at=NOW)


def months(connection: sa.Connection, line_id: str = "a") -> list[int]:
    return store.schedule_of(connection, "default", line_id=line_id)["amount_minor"].to_list()


def holds(connection: sa.Connection) -> None:
    """What account 2200 has is what is scheduled and not recognised, also by its dimension."""
    unearned = store.unearned(connection, "default")
    assert -sum(balances(connection, UNEARNED).values()) == unearned.get("USD", 0)
    assert set(balances(connection, UNEARNED, by="dimension")) <= {"seats"}


def test_a_line_is_recognised_month_by_month_and_once(database: sa.Engine) -> None:
    """A run posts what ended by its day; the same run again posts nothing; the end leaves nothing unearned."""
    with database.begin() as connection:
        billed(connection, lines(("a", 12_000)))
        billed(connection, lines(("b", 1_000), customer="AA"), "even_months")
        holds(connection)
        #   Jun 16.00   Jul 31.00   Aug 31.00 | Sep 30.00   Oct 12.00      even: 2.50 a month until September
        first = store.recognise(connection, "default", date(2026, 8, 31), booked_at=NOW)
        assert (first.rows, first.unearned_minor) == (6, {"USD": 4_200 + 250})
        holds(connection)
        again = store.recognise(connection, "default", date(2026, 9, 29), booked_at=NOW)
        assert (again.rows, again.unearned_minor) == (0, first.unearned_minor)
        last = store.recognise(connection, "default", date(2026, 12, 31), booked_at=NOW)
        assert (last.rows, last.unearned_minor) == (3, {})
        assert balances(connection, REVENUE) == {"UA": -12_000, "AA": -1_000}
        assert balances(connection, REVENUE, through=date(2026, 7, 31)) == {"UA": -4_700, "AA": -500}
        holds(connection)


def test_a_line_is_scheduled_once(database: sa.Engine) -> None:
    """The same line again changes nothing; another amount for it is refused by name; a line of zero has no schedule."""
    with database.begin() as connection:
        billed(connection, lines(("a", 12_000)), "exact")
        assert schedule(connection, lines(("a", 12_000), ("b", 100), ("c", 0)), "exact") == 1
        with pytest.raises(OtherContentError, match="line a is scheduled otherwise"):
            schedule(connection, lines(("b", 100), ("a", 12_001)), "exact")
        with pytest.raises(ValueError, match="'weekly' is not a valid Method"):
            schedule(connection, lines(("d", 1)), "weekly")


def test_instants_are_served_to_the_second(database: sa.Engine) -> None:
    """Bounds may be instants; days begin at midnight of the time zone."""
    noon = [pl.lit(datetime(day.year, day.month, day.day, 12, tzinfo=UTC)).cast(SERVICE["starts_at"]).alias(name)
            for day, name in ((START, "service_start"), (END, "service_end"))]  # fmt: skip
    with database.begin() as connection:
        schedule(connection, lines(("a", 12_000)).with_columns(noon), "exact")
        assert months(connection) == [1_550, 3_100, 3_100, 3_000, 1_250]
        store.schedule_lines(connection, lines(("b", 12_000)), "exact", scheduled_at=NOW, time_zone="Asia/Kathmandu")
        assert months(connection, "b") == [1_600, 3_100, 3_100, 3_000, 1_200]


def test_a_closed_month_is_recognised_on_the_first_open_day(database: sa.Engine) -> None:
    """An entry for a closed month is dated in the open one; no entry of the closed books changes."""
    with database.begin() as connection:
        billed(connection, lines(("a", 12_000)))
        close_period(connection, "default", date(2026, 7, 31))
        store.recognise(connection, "default", date(2026, 8, 31), booked_at=NOW)
        assert balances(connection, REVENUE, through=date(2026, 7, 31)) == {}
        assert balances(connection, REVENUE, through=date(2026, 8, 1)) == {"UA": -4_700}
        holds(connection)


def test_a_change_rewrites_only_the_future(database: sa.Engine) -> None:
    """What is recognised, closed or delivered stays; the rest of the new amount goes to the months behind it."""
    with database.begin() as connection:
        billed(connection, lines(("a", 12_000)))
        store.recognise(connection, "default", date(2026, 6, 30), booked_at=NOW)
        post(connection, "P03", "more", date(2026, 8, 3), dimension="seats", total=3_000, advance=3_000)
        for _ in range(2):  # July is delivered, though no run has recognised it
            changed(connection, 15_000)
            assert months(connection) == [1_600, 3_100, 3_433, 3_433, 3_434]
        holds(connection)
        close_period(connection, "default", date(2026, 8, 31))
        changed(connection, 14_000)
        assert months(connection) == [1_600, 3_100, 3_433, 2_933, 2_934]
        versions = connection.exec_driver_sql("SELECT count(*), sum(version) FROM recognition_schedules").one()
        assert tuple(versions) == (3, 6)
        with pytest.raises(LookupError, match="line z has no schedule"):
            taken(connection, "CN-1", 1, line="z")


def test_a_credit_note_takes_what_is_unearned_first(database: sa.Engine) -> None:
    """The future shrinks, and only what is left reverses revenue; a credit note counts once, and never above the line."""
    with database.begin() as connection:
        billed(connection, lines(("a", 12_000), ("discount", -1_000)))
        store.recognise(connection, "default", date(2026, 7, 31), booked_at=NOW)
        for _ in range(2):
            assert taken(connection, "CN-1", 2_100) == ("a", 2_100, 0)
        post(connection, "P12", "CN-1", date(2026, 9, 5), dimension="seats", advance=2_100, total=2_100)
        assert months(connection) == [1_600, 3_100, 3_100, 1_500, 600]  # August stays: it was delivered by September
        holds(connection)
        assert taken(connection, "CN-2", 3_000) == ("a", 2_100, 900)
        assert months(connection) == [1_600, 3_100, 3_100]
        assert taken(connection, "CN-3", -400, line="discount") == ("discount", -350, -50)
        left = store.left_of(connection, "default", ["a", "discount"])
        assert left.rows() == [("a", 6_900), ("discount", -600)]
        with pytest.raises(ValueError, match="allowed: at most what is left of it, 6900"):
            taken(connection, "CN-4", 6_901)
        with pytest.raises(ValueError, match="allowed: at most what is left of it, 6900"):
            taken(connection, "CN-4", -1)
        with pytest.raises(OtherContentError, match="CN-1 was taken off with other amounts"):
            taken(connection, "CN-1", 3_000)


HEAD = """INSERT INTO recognition_schedules VALUES ('default', '{line}', {version}, 'invoice of a', 'UA', 'USD', 'seats',
          {minor}, 'day', '2026-06-15', '2026-10-13', 'UTC', '{months}', '{amounts}', '{opens}', 'x', now())"""
WRONG = [
    (HEAD.format(line="b", version=1, minor=10, months="{2026-06-01}", amounts="{9}", opens="0001-01-01"),
     "the months of line b add up to 9, its schedule is 10"),
    (HEAD.format(line="b", version=1, minor=0, months="{2026-06-01,2026-06-01}", amounts="{9,-9}", opens="0001-01-01"),
     "the months of line b add up"),
    (HEAD.format(line="a", version=2, minor=5, months="{2026-06-01}", amounts="{5}", opens="2026-06-01"),
     "month 2026-06-01 of line a was recognised"),
    (HEAD.format(line="a", version=2, minor=5, months="{2026-08-01}", amounts="{5}", opens="2026-08-01"),
     "rewrites months before 2026-08-01"),
    (HEAD.format(line="a", version=3, minor=5, months="{2026-08-01}", amounts="{5}", opens="2026-08-01"),
     "does not follow on one before it"),
    ("INSERT INTO recognitions VALUES ('default', 'a', '2026-07-01', 1, 3099, gen_random_uuid())", "says otherwise"),
    ("INSERT INTO recognitions VALUES ('default', 'a', '2026-06-01', 1, 1600, gen_random_uuid())", "recognitions_pkey"),
    ("DELETE FROM recognitions", "what is recognised stays so"),
    ("UPDATE recognition_schedules SET amount_minor = 1", "a schedule never changes; add a version"),
    ("TRUNCATE recognition_credits", "a credit never changes"),
    ("DELETE FROM accruals", "an accrual never changes"),
]  # fmt: skip


def test_the_database_refuses_what_does_not_add_up_or_rewrites_the_past(database: sa.Engine) -> None:
    """Whoever writes: sums, recognised and closed months, and what is there never changes."""
    with database.begin() as connection:
        billed(connection, lines(("a", 12_000)))
        store.recognise(connection, "default", date(2026, 6, 30), booked_at=NOW)
    for statement, message in WRONG:
        with pytest.raises(sa.exc.DBAPIError, match=message), database.begin() as connection:
            connection.exec_driver_sql(statement)
    with database.begin() as connection:
        close_period(connection, "default", date(2026, 8, 31))
    late = HEAD.format(line="a", version=2, minor=1_600, months="{2026-06-01}", amounts="{1600}", opens="2026-08-01")
    with pytest.raises(sa.exc.DBAPIError, match="closed through 2026-08-31"), database.begin() as connection:
        connection.exec_driver_sql(late)


def test_a_tenant_sees_its_own_schedules_and_two_runs_at_once_recognise_once(database: sa.Engine) -> None:
    """The views keep tenants apart as the tables do; whoever recognises waits for the one who does already."""
    with database.begin() as connection:
        billed(connection, lines(("a", 12_000), ("b", 600)))
        billed(connection, lines(("z", 500), tenant="acme"))
    with tenant_transaction(database, "acme") as connection:
        for table in ("recognition_schedules", "schedules_in_force", "months_in_force"):
            query = f"SELECT DISTINCT line_id FROM {table}"
            assert connection.exec_driver_sql(query).scalars().all() == ["z"]
        assert store.recognise(connection, "acme", date(2026, 12, 31), booked_at=NOW).rows == 5

    def run(_: int) -> int:
        with database.begin() as connection:
            return store.recognise(connection, "default", date(2026, 8, 31), booked_at=NOW).rows

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(run, range(4))) == [0, 0, 0, 6]
    with database.begin() as connection:
        holds(connection)
