"""What was used and is not billed at a month's end, in a real PostgreSQL."""

from datetime import date

import polars as pl
import sqlalchemy as sa

from invoicing.accruals import store
from invoicing.accruals.documents import UNBILLED
from invoicing.periods.store import close_period
from tests.simulation.books import NOW, balances

UNBILLED_RECEIVABLE, USAGE, COMMITMENT = 1150, 4010, 4020


def test_usage_is_revenue_of_the_month_it_was_used_in(database: sa.Engine) -> None:
    """Unbilled usage is accrued at the month's end, again by its difference, and taken back by its invoice."""
    with database.begin() as connection:

        def accrue(*rows: tuple[str, str, int]) -> int:
            made = [(customer, "USD", amount, "", minor) for customer, amount, minor in rows]
            unbilled = pl.DataFrame(made, schema=UNBILLED, orient="row")
            return store.accrue(connection, "default", "2026-11", unbilled, through=date(2026, 11, 30), booked_at=NOW)

        first = [("UA", "subtotal", 700), ("UA", "commitment", 300), ("AA", "subtotal", 50)]
        assert [accrue(*first), accrue(*first)] == [2, 0]
        assert accrue(("UA", "subtotal", 950), ("UA", "commitment", 50)) == 2
        assert balances(connection, UNBILLED_RECEIVABLE) == {"UA": 1_000}
        assert balances(connection, USAGE) == {"UA": -950}
        assert balances(connection, COMMITMENT) == {"UA": -50}
        assert store.open_periods(connection, "default") == ["2026-11"]
        close_period(connection, "default", date(2026, 11, 30))
        customers = pl.DataFrame({"customer": ["UA", "ZZ"], "currency": ["USD", "USD"]})
        for new in (1, 0):
            released = store.release(
                connection, "default", "2026-11", customers, effective_at=date(2026, 11, 30), booked_at=NOW
            )
            assert released == new
        assert store.open_periods(connection, "default") == []
        assert balances(connection, UNBILLED_RECEIVABLE) == {}
        assert balances(connection, USAGE, through=date(2026, 11, 30)) == {
            "UA": -950
        }  # the closed month keeps its revenue
        assert balances(connection, USAGE) == {}  # and its invoice brings what is taken back here
        assert accrue(("UA", "subtotal", 10)) == 1  # the invoice was voided: it is unbilled again
