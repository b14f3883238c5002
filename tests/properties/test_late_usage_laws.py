"""Laws of late usage: each difference goes one way, and what is neither late nor of an earlier period stays."""

from datetime import date
from decimal import Decimal

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from invoicing.late_usage.policies import LATE, TAKEN_BACK, decided
from schemas.invoice import DRAFTED
from schemas.plan import LateUsage

PERIODS = ("2026-01", "2026-02", "2026-03")
RUN = PERIODS[-1]
KEYS = st.tuples(st.sampled_from("abc"), st.sampled_from(["EUR", "USD"]), st.sampled_from(PERIODS))
AMOUNTS = st.dictionaries(
    st.tuples(KEYS, st.sampled_from(["calls", "minimum"])), st.integers(-50, 50), min_size=1, max_size=20
)
ARRIVED = st.dictionaries(st.tuples(st.sampled_from("abc"), st.sampled_from(PERIODS[:2])), st.sampled_from(LateUsage))


@given(AMOUNTS, ARRIVED, st.sets(KEYS))
def test_each_difference_goes_one_way(
    amounts: dict[tuple[tuple[str, str, str], str], int],
    arrived: dict[tuple[str, str], LateUsage],
    billed: set[tuple[str, str, str]],
) -> None:
    """What is billed, written off and billed again add up to what was found; a write-off is above zero by period."""
    rows = [
        {
            "document": "abc".index(customer) * 2 + (currency == "USD"), "kind": "usage", "customer": customer,
            "currency": currency, "usage_period": period, "charge": charge, "description": charge, "model": "", "meter": None,
            "quantity": Decimal(0), "amount": Decimal(0), "amount_minor": minor, "tax_rule": None, "revenue": "subtotal",
            "service_start": date(2026, 1, 1), "service_end": date(2026, 1, 2), "explanation": "{}",
        }
        for ((customer, currency, period), charge), minor in sorted(amounts.items())
    ]  # fmt: skip
    late = pl.DataFrame(
        [(*key, policy.value, ["calls"], 1) for key, policy in arrived.items()], schema=LATE, orient="row"
    )
    known = [(f"{key}", customer, currency, period, customer, "INV") for key in sorted(billed) for customer, currency, period in [key]]  # fmt: skip
    found = decided(
        pl.DataFrame(rows, schema=DRAFTED), late, pl.DataFrame(known, schema=TAKEN_BACK, orient="row"), run_period=RUN
    )
    again = {(each["customer"], each["currency"], each["usage_period"]) for each in found.rebilled.to_dicts()}
    ways: dict[tuple[tuple[str, str, str], str], str] = {}
    for name, frame in (("billed", found.lines), ("written off", found.written_off)):
        for row in frame.to_dicts():
            key = ((row["customer"], row["currency"], row["usage_period"]), row["charge"])
            assert row["amount_minor"] == amounts[key]
            assert ways.setdefault(key, name) == name
    sums: dict[tuple[str, str, str], int] = {}
    for (key, _), minor in amounts.items():
        sums[key] = sums.get(key, 0) + minor
    left: dict[tuple[str, str], list[int]] = {}
    for (key, charge), minor in amounts.items():
        policy = arrived.get((key[0], key[2])) if key[2] < RUN else None
        if policy is LateUsage.REBILL and key in billed:
            assert key in again
            assert (key, charge) not in ways
        elif policy is LateUsage.WRITE_OFF and sums[key] > 0:
            assert ways[key, charge] == "written off"
        else:
            left.setdefault(key[:2], []).append(minor)
            assert ways.get((key, charge), "billed") == "billed"
    for (customer, currency), own in left.items():
        kept = found.lines.filter((pl.col("customer") == customer) & (pl.col("currency") == currency))
        assert kept.height == (len(own) if any(own) else 0)
