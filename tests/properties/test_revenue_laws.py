"""Law I12 over whatever happens to lines that were billed in advance, in a real PostgreSQL."""

from datetime import date, timedelta
from itertools import count

import polars as pl
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing.periods.store import close_period, closed_through
from invoicing.recognition import store
from invoicing.recognition.rows import LINES
from tests.simulation.books import NOW, balances, post

START = date(2026, 1, 10)
methods = st.sampled_from(("exact", "day", "even_months", "prorated_ends"))
days = st.integers(0, 400).map(lambda days: START + timedelta(days=days))
steps = st.one_of(
    st.tuples(st.just("bill"), st.tuples(st.integers(1, 10_000), days, st.integers(0, 300), methods)),
    st.tuples(st.just("recognise"), days),
    st.tuples(st.just("credit"), st.tuples(st.integers(0, 9), st.integers(1, 100), days)),
    st.tuples(st.just("close"), days),
)
tenants = map("tenant {}".format, count())
UNEARNED, REVENUE = 2200, 4000


def revenue_of_closed(connection: sa.Connection, tenant: str) -> dict[str, int]:
    """What the closed days have as revenue."""
    closed = closed_through(connection, tenant)
    return {} if closed is None else balances(connection, REVENUE, tenant=tenant, through=closed)


def step(connection: sa.Connection, tenant: str, kind: str, what: object, number: int, billed: dict[str, int]) -> None:
    """Do one thing as the code that posts invoices and credit notes does it."""
    closed = closed_through(connection, tenant)
    opens = START if closed is None else closed + timedelta(days=1)
    if kind == "bill":
        minor, start, length, method = what  # type: ignore[misc]
        line = f"line {number}"
        row = (tenant, "invoice", line, "UA", "USD", minor, start, start + timedelta(days=length), "")
        store.schedule_lines(connection, pl.DataFrame([row], schema=LINES, orient="row"), method, scheduled_at=NOW)
        post(connection, "P03", line, max(start, opens), tenant=tenant, total=minor, advance=minor)
        billed[line] = minor
    elif kind == "credit" and billed:
        which, percent, as_of = what  # type: ignore[misc]
        line = list(billed)[which % len(billed)]
        minor = billed[line] * percent // 100
        if 0 < minor <= store.left_of(connection, tenant, [line])["credit_minor"].sum():
            note = pl.DataFrame({"line_id": [line], "credit_minor": [minor]})
            [(_, deferred, recognised)] = store.reverse_deferred(
                connection, tenant, note, document_id=f"note {number}", as_of=as_of, at=NOW
            ).rows()
            assert deferred + recognised == minor
            if deferred:
                post(connection, "P12", f"note {number}", max(as_of, opens), tenant=tenant, advance=deferred,
                     total=deferred)  # fmt: skip
    elif kind == "recognise":
        store.recognise(connection, tenant, what, booked_at=NOW)  # type: ignore[arg-type]
    elif kind == "close":
        close_period(connection, tenant, what)  # type: ignore[arg-type]


@given(st.lists(steps, min_size=3, max_size=9))
@settings(max_examples=12)
def test_unearned_revenue_is_what_is_scheduled_and_not_recognised(
    shared_database: sa.Engine, history: list[tuple[str, object]]
) -> None:
    """After each step; closed days keep their revenue, nothing is recognised above what was billed, and all in the end."""
    tenant, billed = next(tenants), dict[str, int]()
    with shared_database.begin() as connection:
        for number, (kind, what) in enumerate(history):
            before = revenue_of_closed(connection, tenant)
            step(connection, tenant, kind, what, number, billed)
            if kind != "close":
                assert revenue_of_closed(connection, tenant) == before
            unearned = store.unearned(connection, tenant).get("USD", 0)
            assert -sum(balances(connection, UNEARNED, tenant=tenant).values()) == unearned
            assert 0 <= -sum(balances(connection, REVENUE, tenant=tenant).values()) <= sum(billed.values())
        assert store.recognise(connection, tenant, date(2030, 1, 1), booked_at=NOW).unearned_minor == {}
        assert balances(connection, UNEARNED, tenant=tenant) == {}
