"""Revenue over time, in a real PostgreSQL: what is unearned in the books is what is scheduled and not recognised."""

from datetime import UTC, date, datetime

import polars as pl
import pytest
import sqlalchemy as sa

from invoicing import store as books
from invoicing.bookings.documents import AMOUNTS, DOCUMENTS
from invoicing.bookings.store import balances, post
from invoicing.recognition import store
from invoicing.recognition.rows import LINES

NOW = datetime(2026, 12, 1, tzinfo=UTC)
START, END = datetime(2026, 6, 15, 12, tzinfo=UTC), datetime(2026, 10, 13, 12, tzinfo=UTC)
UNEARNED, REVENUE, UNBILLED, USAGE = 2200, 4000, 1150, 4010


def lines(*rows: tuple[str, int, str, str]) -> pl.DataFrame:
    """Lines of line id, minor units, customer and method over the published period."""
    return pl.DataFrame(
        [(line_id, minor, START, END, method, customer, "USD") for line_id, minor, customer, method in rows],
        schema=LINES, orient="row",
    )  # fmt: skip


def document(
    template: str, document_id: str, day: date, amounts: dict[str, int], customer: str = "UA"
) -> tuple[pl.DataFrame, pl.DataFrame]:
    head = ("default", template, "test", document_id, 1, 1, None, None, day, document_id, customer)
    rows = [(0, name, "USD", "", minor) for name, minor in amounts.items()]
    return pl.DataFrame([head], schema=DOCUMENTS, orient="row"), pl.DataFrame(rows, schema=AMOUNTS, orient="row")


def billed(connection: sa.Connection, frame: pl.DataFrame) -> None:
    """Schedule lines, and post their invoices: receivable to unearned revenue."""
    assert store.schedule_lines(connection, "default", frame, time_zone="UTC", scheduled_at=NOW) == frame.height
    for line_id, minor, customer in frame.select("line_id", "amount_minor", "customer").iter_rows():
        post(
            connection,
            *document("P03", line_id, START.date(), {"total": minor, "advance": minor}, customer),
            booked_at=NOW,
        )


def months(connection: sa.Connection, line_id: str = "a") -> list[int]:
    return store.schedule_of(connection, "default", line_id)["amount_minor"].to_list()


def attempt(database: sa.Engine, statements: list[str]) -> None:
    with database.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def holds(connection: sa.Connection) -> None:
    """What account 2200 has is what is scheduled and not recognised."""
    in_books = -sum(balances(connection, "default", UNEARNED).values())
    assert in_books == store.unearned(connection, "default").get("USD", 0)


def test_a_line_is_recognised_month_by_month_and_once(database: sa.Engine) -> None:
    """A run posts what ended by its day; the same run again posts nothing; the end leaves nothing unearned."""
    with database.begin() as connection:
        billed(connection, lines(("a", 12_000, "UA", "day"), ("b", 1_000, "AA", "even_months")))
        holds(connection)
        #   Jun 16.00   Jul 31.00   Aug 31.00 | Sep 30.00   Oct 12.00      even: 2.50 a month until September
        first = store.recognise(connection, "default", date(2026, 8, 31), booked_at=NOW)
        assert (first.rows, first.unearned_minor) == (6, {"USD": 4_200 + 250})
        assert connection.exec_driver_sql("SELECT DISTINCT position FROM postings ORDER BY 1").scalars().all() == [1, 2]
        holds(connection)
        again = store.recognise(connection, "default", date(2026, 9, 29), booked_at=NOW)
        assert (again.rows, again.unearned_minor) == (0, first.unearned_minor)
        last = store.recognise(connection, "default", date(2026, 12, 31), booked_at=NOW)
        assert (last.rows, last.unearned_minor) == (3, {})
        assert balances(connection, "default", REVENUE) == {("UA", "USD"): -12_000, ("AA", "USD"): -1_000}
        assert balances(connection, "default", REVENUE, through=date(2026, 7, 31)) == {
            ("UA", "USD"): -4_700, ("AA", "USD"): -500
        }  # fmt: skip
        holds(connection)


def test_a_line_is_scheduled_once(database: sa.Engine) -> None:
    """The same line again changes nothing; another amount for it is refused by name."""
    with database.begin() as connection:
        billed(connection, lines(("a", 12_000, "UA", "exact")))
        assert (
            store.schedule_lines(
                connection, "default", lines(("a", 12_000, "UA", "exact")), time_zone="UTC", scheduled_at=NOW
            )
            == 0
        )
        with pytest.raises(books.OtherContentError, match="line a is scheduled otherwise"):
            store.schedule_lines(
                connection, "default", lines(("a", 12_001, "UA", "exact")), time_zone="UTC", scheduled_at=NOW
            )


def test_a_closed_month_is_recognised_on_the_first_open_day(database: sa.Engine) -> None:
    """An entry for a closed month is dated in the open one; no entry of the closed books changes."""
    with database.begin() as connection:
        billed(connection, lines(("a", 12_000, "UA", "day")))
        books.close_period(connection, "default", date(2026, 7, 31))
        store.recognise(connection, "default", date(2026, 8, 31), booked_at=NOW)
        assert balances(connection, "default", REVENUE, through=date(2026, 7, 31)) == {}
        assert balances(connection, "default", REVENUE, through=date(2026, 8, 1)) == {("UA", "USD"): -4_700}
        holds(connection)


def test_a_change_rewrites_only_the_future(database: sa.Engine) -> None:
    """What is recognised or closed stays; the rest of the new amount goes to the months behind it."""
    with database.begin() as connection:
        billed(connection, lines(("a", 12_000, "UA", "day")))
        store.recognise(connection, "default", date(2026, 7, 31), booked_at=NOW)
        raised = lines(("a", 15_000, "UA", "even_months"))
        post(connection, *document("P03", "more", date(2026, 8, 3), {"total": 3_000, "advance": 3_000}), booked_at=NOW)
        store.change_lines(connection, "default", raised, reason="more seats", changed_at=NOW)
        assert months(connection) == [1_600, 3_100, 3_433, 3_433, 3_434]
        store.change_lines(connection, "default", raised, reason="more seats", changed_at=NOW)
        holds(connection)
        books.close_period(connection, "default", date(2026, 8, 31))
        store.change_lines(
            connection, "default", lines(("a", 14_000, "UA", "even_months")), reason="fewer", changed_at=NOW
        )
        assert months(connection) == [1_600, 3_100, 3_433, 2_933, 2_934]
        versions = connection.exec_driver_sql("SELECT count(*), sum(version) FROM recognition_schedules").one()
        assert tuple(versions) == (3, 6)


def test_a_credit_note_takes_what_is_unearned_first(database: sa.Engine) -> None:
    """The future shrinks, and only what is left reverses revenue; a credit note counts once, and never above the line."""
    with database.begin() as connection:
        billed(connection, lines(("a", 12_000, "UA", "day")))
        store.recognise(connection, "default", date(2026, 8, 31), booked_at=NOW)  # 78.00 of 120.00
        note = pl.DataFrame({"line_id": ["a"], "credit_minor": [2_100]})
        for _ in range(2):
            parts = store.credit_lines(connection, "default", note, document_id="CN-1", credited_at=NOW)
            assert parts.row(0) == ("a", 2_100, 0)
        post(connection, *document("P12", "CN-1", date(2026, 9, 5), {"advance": 2_100, "total": 2_100}), booked_at=NOW)
        assert months(connection) == [1_600, 3_100, 3_100, 1_500, 600]
        holds(connection)
        other = pl.DataFrame({"line_id": ["a"], "credit_minor": [3_000]})
        parts = store.credit_lines(connection, "default", other, document_id="CN-2", credited_at=NOW)
        assert parts.row(0) == ("a", 2_100, 900)
        post(
            connection,
            *document("P12", "CN-2", date(2026, 9, 6), {"advance": 2_100, "recognised": 900, "total": 3_000}),
            booked_at=NOW,
        )
        assert months(connection) == [1_600, 3_100, 3_100]
        holds(connection)
        assert balances(connection, "default", REVENUE) == {("UA", "USD"): -6_900}
        with pytest.raises(ValueError, match="allowed: at most what is left of it, 6900"):
            store.credit_lines(
                connection,
                "default",
                pl.DataFrame({"line_id": ["a"], "credit_minor": [6_901]}),
                document_id="CN-3",
                credited_at=NOW,
            )
        with pytest.raises(books.OtherContentError, match="CN-1 was taken off with other amounts"):
            store.credit_lines(connection, "default", other, document_id="CN-1", credited_at=NOW)
        with pytest.raises(LookupError, match="line z has no schedule"):
            store.change_lines(connection, "default", lines(("z", 1, "UA", "day")), reason="x", changed_at=NOW)


HEAD = """INSERT INTO recognition_schedules (id, tenant, line_id, version, customer, currency, amount_minor, method, starts_at,
          ends_at, time_zone, rewrites_from, reason, scheduled_at, content_digest) VALUES ('{id}', 'default', '{line}', {version},
          'UA', 'USD', {minor}, 'day', '2026-06-15', '2026-10-13', 'UTC', '{opens}', 'x', now(), 'x')"""
ROW = "INSERT INTO recognition_rows VALUES ('{id} {month}', 'default', '{id}', 1, '{month}', {minor})"


def test_the_database_refuses_a_schedule_that_does_not_add_up_or_rewrites_the_past(database: sa.Engine) -> None:
    """Whoever writes: sums are checked at commit, recognised months stay, and what is there never changes."""
    with database.begin() as connection:
        billed(connection, lines(("a", 12_000, "UA", "day")))
        store.recognise(connection, "default", date(2026, 6, 30), booked_at=NOW)
    short = HEAD.format(id="s", line="b", version=1, minor=10, opens="0001-01-01")
    past = HEAD.format(id="s", line="a", version=2, minor=5, opens="2026-06-01")
    for statements, message in [
        ([short, ROW.format(id="s", month="2026-06-01", minor=9)], "the months of line b add up to 9, its schedule is 10"),
        ([past, ROW.format(id="s", month="2026-06-01", minor=5)], "month 2026-06-01 of line a was recognised"),
        ([ROW.format(id="s", month="2026-06-02", minor=5)], "recognition_rows_month_check"),
        (["DELETE FROM recognition_rows"], "a schedule never changes; add a version"),
        (["UPDATE recognition_schedules SET amount_minor = 1"], "a schedule never changes; add a version"),
        (["INSERT INTO recognition_rows SELECT 'n', 'default', id, 9, '2027-01-01', 5 FROM recognition_schedules"],
         "takes no more months"),
        ([ROW.format(id="nobody", month="2026-06-01", minor=9)], "takes no more months, and none that is not"),
    ]:  # fmt: skip
        with pytest.raises(sa.exc.DBAPIError, match=message):
            attempt(database, statements)


def test_usage_is_revenue_of_the_month_it_was_used_in(database: sa.Engine) -> None:
    """Unbilled usage is accrued at the month's end, again by its difference, and taken back by its invoice."""
    with database.begin() as connection:

        def accrue(**minor: int) -> int:
            unbilled = pl.DataFrame(
                [(name, "USD", value) for name, value in minor.items()],
                schema={"customer": pl.String, "currency": pl.String, "amount_minor": pl.Int64},
                orient="row",
            )
            return store.accrue(connection, "default", "2026-11", unbilled, through=date(2026, 11, 30), booked_at=NOW)

        assert accrue(UA=700, AA=50) == 2
        assert accrue(UA=700, AA=50) == 0
        assert accrue(UA=950) == 2
        assert balances(connection, "default", UNBILLED) == {("UA", "USD"): 950}
        assert balances(connection, "default", USAGE) == {("UA", "USD"): -950}
        customers = pl.DataFrame({"customer": ["UA", "ZZ"], "currency": ["USD", "USD"]})
        for new in (1, 0):
            released = store.release_accruals(
                connection, "default", "2026-11", customers, effective_at=date(2026, 11, 30), booked_at=NOW
            )
            assert released == new
        assert balances(connection, "default", UNBILLED) == {}
