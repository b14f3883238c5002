"""Progressive billing: however usage goes and whatever is billed of it early, all invoices come to what one would."""

from collections.abc import Mapping
from decimal import Decimal

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing.invoices.drafts import Drafts, drafted, periodic_heads, progressive_heads
from invoicing.invoices.lines import lines_of
from meterline.taxing import with_taxes
from rating.progressive import crossed
from schemas.invoice import BOOKED, CHARGED, Basis
from schemas.money import MINOR_UNITS
from schemas.plan import ProgressiveBilling

BASIS = Basis(cut=3, book="b", book_version=1, book_digest="book", contracts_digest="contracts")
PERIOD = "2026-03"
RULES = (
    None, '{"mode":"exclusive","name":"VAT","rate_percent":"19"}', '{"mode":"exclusive","name":"VAT","rate_percent":"7.7"}',
    '{"mode":"inclusive","name":"VAT","rate_percent":"19"}',
)  # fmt: skip
EURO = Decimal("0.01")


def charge(customer: str, name: str, minor: int, rule: str | None, *, fee: bool = False) -> dict[str, object]:
    return {
        "customer": customer, "period": PERIOD, "charge": name, "kind": "fee" if fee else "usage",
        "revenue": "fees" if fee else "subtotal", "description": name, "model": "standard", "meter": None if fee else name,
        "quantity": Decimal(minor), "slices": [], "amount": minor * EURO, "amount_minor": minor, "tax_rule": rule,
        "service_start": None, "service_end": None, "currency": "EUR", **vars(BASIS),
    }  # fmt: skip


def booked_of(bills: list[Drafts]) -> pl.DataFrame:
    """What the invoices so far have billed, as the store sums it up."""
    if not bills:
        return pl.DataFrame(schema=BOOKED)
    lines = pl.concat([each.lines for each in bills]).with_columns(currency=pl.lit("EUR"))
    sums = [pl.sum(name) for name in ("quantity", "amount", "amount_minor")]
    words = [
        name
        for name in BOOKED
        if name not in {"customer", "usage_period", "charge", "currency", "quantity", "amount", "amount_minor"}
    ]
    keys = ["customer", "usage_period", "charge", "currency"]
    return lines.group_by(keys).agg(*(pl.first(name) for name in words), *sums).select(pl.col(name).cast(kind) for name, kind in BOOKED.items())  # fmt: skip


def bill_of(charges: pl.DataFrame, booked: pl.DataFrame, ordinal: int | None = None) -> Drafts:
    lines = lines_of(charges, booked, run_period=PERIOD, bases={PERIOD: BASIS})
    taxed = with_taxes(lines)
    heads = periodic_heads(lines, tenant="t", run_period=PERIOD, basis=BASIS, customer_names={}, series="INV")
    if ordinal is not None:
        so_far = heads.select("customer", "currency", invoices=pl.lit(ordinal))
        heads = progressive_heads(heads, so_far)
    return drafted(taxed.lines, taxed.groups, heads)


def usage(state: Mapping[str, int], rules: Mapping[str, str | None]) -> pl.DataFrame:
    rows = [charge("ann", name, minor, rules[name]) for name, minor in state.items() if minor]
    return pl.DataFrame(rows, schema=CHARGED)


def sums_of(charges: pl.DataFrame, booked: pl.DataFrame) -> pl.DataFrame:
    rated, billed = charges["amount_minor"].sum(), booked["amount_minor"].sum()
    return pl.DataFrame({"customer": ["ann"], "currency": ["EUR"], "rated_minor": [rated], "billed_minor": [billed]})


names = st.sampled_from(["calls", "bytes", "seats"])
states = st.lists(st.dictionaries(names, st.integers(0, 3000), max_size=3), min_size=1, max_size=5)
steps = st.lists(st.integers(1, 2000), max_size=3, unique=True).map(sorted)


@settings(max_examples=60)
@given(states, st.fixed_dictionaries({name: st.sampled_from(RULES) for name in ("calls", "bytes", "seats")}), steps, st.none() | st.integers(1, 900))  # fmt: skip
def test_all_invoices_of_a_period_come_to_what_one_would(
    states: list[dict[str, int]], rules: dict[str, str | None], steps: list[int], every: int | None
) -> None:
    """Charge by charge and to the cent; only the tax is rounded once an invoice and rate, by at most half a cent each."""
    billing = ProgressiveBilling(thresholds=tuple(step * EURO for step in steps), then_every=every and every * EURO)
    bills: list[Drafts] = []
    for state in states:
        charges = usage(state, rules)
        for again in (False, True):
            booked = booked_of(bills)
            if crossed(sums_of(charges, booked), {"ann": billing}, None).is_empty():
                continue
            assert not again, "the same state was billed twice"
            bill = bill_of(charges, booked, len(bills))
            assert bill.invoices.height == 1
            assert bill.lines["amount_minor"].sum() > 0
            bills.append(bill)
    whole = pl.concat([usage(states[-1], rules), pl.DataFrame([charge("ann", "base", 1000, RULES[1], fee=True)], schema=CHARGED)])  # fmt: skip
    last = bill_of(whole, booked_of(bills))
    alone = bill_of(whole, pl.DataFrame(schema=BOOKED))
    by_charge = {row[0]: row[1] for row in booked_of([*bills, last]).select("charge", "amount_minor").rows() if row[1]}
    assert by_charge == dict(alone.lines.select("charge", "amount_minor").rows())
    assert bill_of(whole, booked_of([*bills, last])).invoices.is_empty()
    ids = [each.invoices["id"].item() for each in (*bills, last)]
    assert len(set(ids)) == len(ids)
    paid = sum(each.invoices["total_minor"].item() for each in (*bills, last))
    groups = len({rule for rule in rules.values() if rule} | {RULES[1]})
    assert abs(paid - alone.invoices["total_minor"].item()) * 2 <= (len(bills) + 2) * groups


@given(
    st.integers(-5000, 5000), st.integers(-5000, 5000), steps, st.none() | st.integers(1, 900),
    st.sampled_from(["JPY", "EUR", "KWD", "CLF"]),
)  # fmt: skip
def test_a_threshold_is_crossed_where_one_lies_between(
    rated: int, billed: int, steps: list[int], every: int | None, currency: str
) -> None:
    """Against a walk over all thresholds; others than customers with contracts have what the default plan has."""
    unit = Decimal(1).scaleb(-MINOR_UNITS[currency])
    billing = ProgressiveBilling(thresholds=tuple(step * unit for step in steps), then_every=every and every * unit)
    sums = pl.DataFrame({"customer": ["ann", "bea"], "currency": [currency] * 2, "rated_minor": [rated] * 2, "billed_minor": [billed] * 2})  # fmt: skip
    last = steps[-1] if steps else 0
    walked = [*steps, *(range(last + every, 6000, every) if every else ())]
    expected = any(max(billed, 0) < step <= rated for step in walked)
    assert crossed(sums, {"ann": billing, "bea": None}, None)["customer"].to_list() == (["ann"] if expected else [])
    assert crossed(sums, {"ann": None}, billing)["customer"].to_list() == (["bea"] if expected else [])
