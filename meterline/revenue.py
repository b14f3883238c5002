"""What can be asked of revenue over time: to recognise it, to accrue it, and the schedules of lines."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta

import polars as pl

from invoicing import store as invoicing
from invoicing.accruals.documents import UNBILLED
from invoicing.accruals.store import accrue, accrued
from invoicing.invoices.store import booked
from invoicing.ledger.store import hold
from invoicing.recognition.store import recognise, schedule_of, unearned
from meterline.accruing import rated_month, unbilled
from meterline.output import Output, Table, Text
from meterline.period import Period
from meterline.system import System
from schemas.money import MINOR_UNITS, major
from schemas.tenant import DEFAULT_TENANT


def recognise_revenue(app: System, *, through: str, tenant: str = DEFAULT_TENANT) -> Iterator[Output]:
    """Recognise every month of what was billed in advance that has ended by a day."""
    with app.database.begin() as connection:
        done = recognise(connection, tenant, day_named(through), booked_at=datetime.now(UTC))
    yield Text(
        text=f"{done.rows:,} months of lines are recognised now; still unearned: {amounts_text(done.unearned_minor)}"
    )


def accrue_revenue(app: System, *, through: str) -> Iterator[Output]:
    """Post what was used of a month and is not billed as revenue of the month; what was accrued before is adjusted."""
    last = day_named(through)
    month = Period.parse(f"{last:%Y-%m}")
    if last + timedelta(days=1) != month.end.date():
        raise ValueError(f"day {through}; allowed: the last day of a month, such as {month.end.date() - timedelta(1)}")
    now = datetime.now(UTC)
    rated = rated_month(app, month, now)
    with app.database.begin() as connection:
        hold(connection, DEFAULT_TENANT)  # first: what a bill run posts meanwhile is booked, and not accrued
        run = invoicing.run_of(connection, DEFAULT_TENANT, str(month))
        billed = run is not None and run.state == "posted"  # what came since is of the next run
        before = booked(connection, DEFAULT_TENANT, [str(month)])
        owed = pl.DataFrame(schema=UNBILLED) if billed else unbilled(rated, before)
        new = accrue(connection, DEFAULT_TENANT, str(month), owed, through=last, booked_at=now)
        known = accrued(connection, DEFAULT_TENANT, str(month))
    sums = known.group_by("currency").agg(pl.col("amount_minor").sum()).filter(pl.col("amount_minor") != 0)
    yield Text(text=f"{new:,} entries posted; accrued for {month}: {amounts_text(dict(sums.iter_rows()))}")


def list_schedules(
    app: System, *, line: str | None = None, invoice: str | None = None, tenant: str = DEFAULT_TENANT
) -> Iterator[Output]:
    """The months of a line, or of all lines of an invoice that were billed in advance; or what is unearned in all."""
    with app.database.connect() as connection:
        if line is None and invoice is None:
            yield Text(text=f"unearned: {amounts_text(unearned(connection, tenant))}")
            return
        found = schedule_of(connection, tenant, line_id=line, invoice_id=invoice)
    rows = [
        (row["line_id"], f"{row['month']:%Y-%m}", row["currency"], amount_text(row["amount_minor"], row["currency"]),
         "recognised" if row["recognised"] else "")
        for row in found.iter_rows(named=True)
    ]  # fmt: skip
    yield Table(
        title="Schedules", columns=("line", "month", "currency", "amount", "state"), rows=rows, numbers=("amount",)
    )


def amount_text(minor: int, currency: str) -> str:
    """An amount in units of its currency, for a person.

    >>> amount_text(1234500, "USD")
    '12,345.00'
    """
    return f"{major(minor, MINOR_UNITS[currency]):,f}"


def amounts_text(by_currency: Mapping[str, int]) -> str:
    """Amounts by currency, for a person.

    >>> amounts_text({"USD": 4200, "EUR": 100}), amounts_text({})
    ('1.00 EUR, 42.00 USD', 'nothing')
    """
    return ", ".join(f"{amount_text(minor, name)} {name}" for name, minor in sorted(by_currency.items())) or "nothing"


def day_named(text: str) -> date:
    """The day that a text names. Raises ValueError that says what is allowed."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"day {text!r}; allowed: a day such as 2026-08-31") from None


REVENUE_OPERATIONS = (recognise_revenue, accrue_revenue, list_schedules)
