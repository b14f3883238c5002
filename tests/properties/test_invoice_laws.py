"""Laws of invoices, for any charges and taxes, and whatever was booked before."""

import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from invoicing.invoices.drafts import Drafts
from invoicing.invoices.entries import journal
from schemas.invoice import BOOKED, Basis, Revenue
from schemas.plan import TaxMode
from tests.documents.drafts import charged, drafts_of, issued, tax_rule

NOW = datetime(2013, 4, 1, tzinfo=UTC)
PERIODS = ("2013-01", "2013-02", "2013-03")
BASIS = Basis(cut=3, book="airports", book_version=1, book_digest="book", contracts_digest="contracts")
KEY = ("customer", "usage_period", "charge", "currency")
NOTHING = pl.DataFrame(schema=BOOKED)

keys = st.tuples(
    st.sampled_from(("AA", "B6", "UA")),
    st.sampled_from(PERIODS),
    st.sampled_from(("turns", "gates")),
    st.sampled_from(("USD", "JPY")),
)
rules = st.sampled_from(
    (None, tax_rule("VAT", "20"), tax_rule("City", "8.875"), tax_rule("VAT", "19", TaxMode.INCLUSIVE))
)
amounts = st.tuples(
    st.integers(-(10**12), 10**12), st.decimals(-1000, 1000, places=9), rules, st.sampled_from(list(Revenue))
)
rated = st.dictionaries(keys, amounts, max_size=20)
Rated = dict[tuple[str, str, str, str], tuple[int, Decimal, str | None, Revenue]]


def run(state: Rated, booked: pl.DataFrame) -> Drafts:
    rows = [
        charged(BASIS, customer=customer, period=period, charge=charge, currency=currency, amount_minor=minor,
                quantity=quantity, amount=quantity, tax_rule=rule, revenue=revenue.value)
        for (customer, period, charge, currency), (minor, quantity, rule, revenue) in state.items()
    ]  # fmt: skip
    return drafts_of(rows, booked, bases=dict.fromkeys(PERIODS, BASIS), run_period="2013-03")


def booked_of(*parts: Drafts) -> pl.DataFrame:
    lines = pl.concat(
        part.lines.join(part.invoices.select("id", "currency"), left_on="invoice_id", right_on="id") for part in parts
    )
    sums = [pl.col(name).sum() for name in ("quantity", "amount", "amount_minor")]
    words = [pl.col(name).first() for name in BOOKED if name not in {*KEY, "quantity", "amount", "amount_minor"}]
    return lines.group_by(*KEY).agg(*words, *sums).select(*BOOKED)


@given(rated)
def test_the_books_balance(state: Rated) -> None:
    """The postings of an entry sum to zero, per currency; an entry has two at least, none of them zero."""
    done = issued(run(state, NOTHING))
    posted = journal(done.invoices, done.lines, booked_at=NOW)
    sums = posted.postings.group_by("entry_id", "currency").agg(pl.col("amount_minor").sum(), pl.len())
    assert sums["amount_minor"].to_list() == [0] * posted.entries.height
    assert (sums["len"] >= 2).all()
    assert (posted.postings["amount_minor"] != 0).all()


@given(rated)
def test_lines_and_taxes_add_up_to_the_total(state: Rated) -> None:
    """The subtotal is the sum of lines without tax, and what lines, rates and the invoice say of taxes is one sum."""
    drafts = run(state, NOTHING)
    nets, taxes = Counter[str](), Counter[str]()
    by_rate: Counter[tuple[str, str, str]] = Counter()
    for line in drafts.lines.iter_rows(named=True):
        nets[line["invoice_id"]] += line["net_minor"]
        taxes[line["invoice_id"]] += line["tax_minor"]
        for each in json.loads(line["taxes"] or "[]"):
            by_rate[line["invoice_id"], each["name"], each["rate_percent"]] += each["tax_minor"]
        inclusive = "inclusive" in (line["tax_rule"] or "")
        assert line["net_minor"] == line["amount_minor"] - (line["tax_minor"] if inclusive else 0)
    for head in drafts.invoices.iter_rows(named=True):
        groups: Counter[tuple[str, str, str]] = Counter()
        for each in json.loads(head["taxes"]):
            groups[head["id"], each["name"], each["rate_percent"]] += each["tax_minor"]
            exact = Decimal(each["base_minor"]) * Decimal(each["rate_percent"]) / 100
            assert abs(each["tax_minor"] - exact) <= Decimal("0.6")  # of a price with tax in it, the net is rounded
        assert groups == {key: minor for key, minor in by_rate.items() if key[0] == head["id"]}
        assert head["subtotal_minor"] == nets[head["id"]]
        assert head["tax_minor"] == taxes[head["id"]] == sum(groups.values())
        assert head["total_minor"] == head["subtotal_minor"] + head["tax_minor"]
    assert set(nets) == set(drafts.invoices["id"])


@given(rated)
def test_a_second_run_changes_nothing(state: Rated) -> None:
    """What is booked as rated gives no lines and no invoices when it is rated again."""
    again = run(state, booked_of(run(state, NOTHING)))
    assert again.lines.is_empty()
    assert again.invoices.is_empty()


@given(rated, rated)
def test_booked_and_difference_are_what_is_rated_now(before: Rated, after: Rated) -> None:
    """After a run the posted lines of every customer, period and charge add up to what it is rated at now."""
    first = run(before, NOTHING)
    second = run(after, booked_of(first))
    posted = {tuple(row[:4]): row[4] for row in booked_of(first, second).select(*KEY, "amount_minor").iter_rows()}
    for key in {*before, *after, *posted}:
        assert posted.get(key, 0) == (after[key][0] if key in after else 0)


@given(rated)
def test_the_order_of_charges_does_not_change_the_money(state: Rated) -> None:
    """Invoices differ in the order of their lines alone when charges come in another order."""
    turned = dict(reversed(state.items()))
    sums = ("id", "subtotal_minor", "tax_minor", "total_minor")
    assert run(state, NOTHING).invoices.select(*sums).equals(run(turned, NOTHING).invoices.select(*sums))
