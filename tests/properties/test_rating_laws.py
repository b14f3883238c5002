"""Laws of rating, over random price books, contracts and usage."""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from rating.rater import Rated, rate
from schemas.charge import CHARGES
from schemas.contract import Contract, Contracts
from schemas.money import QUANTITY
from schemas.price_book import FlatCharge, PriceBook
from tests.oracles.rating_oracle import Answer, Usage, rate_slowly, slices_of

AGGREGATIONS = {"total": "SUM", "calls": "COUNT", "least": "MIN", "peak": "MAX", "users": "UNIQUE_COUNT"}
PERIOD, PERIOD_END = "2013-01", date(2013, 2, 1)
SUBJECTS = ["a", "b", "c", "é"]

# Small whole numbers first, so that quantities often meet the end of a tier or fill a package.
small = st.integers(1, 8).map(Decimal)
quantities = st.one_of(
    small,
    small,
    st.integers(-3, 40).map(Decimal),
    st.decimals(-5, 1000, places=9),
    st.decimals(10**9, 10**9 + 1, places=9),
)
prices = st.one_of(st.integers(0, 9).map(Decimal), st.decimals(0, 100, places=12), st.decimals(0, 100, places=2))


@st.composite
def tiers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Tiers with ascending ends, the last without one."""
    ends = sorted(draw(st.sets(st.one_of(small, small, st.decimals("0.000000001", 99, places=9)), max_size=3)))
    return [{"up_to": end, "unit_price": draw(prices), "flat": draw(prices)} for end in [*ends, None]]


@st.composite
def charges(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """A charge of any model."""
    model = draw(st.sampled_from(["flat", "graduated", "volume", "package"]))
    if model == "flat":
        return {"id": name, "model": model, "amount": draw(prices)}
    charge = {"id": name, "model": model, "meter": draw(st.sampled_from(list(AGGREGATIONS)))}
    if model == "package":
        size = draw(st.one_of(small, st.decimals("0.01", 9, places=9)))
        free, rounding = (
            draw(st.one_of(st.just(Decimal(0)), st.decimals(0, 20, places=1))),
            draw(st.sampled_from(["up", "down"])),
        )
        return {**charge, "size": size, "price": draw(prices), "free_units": free, "round": rounding}
    return {**charge, "tiers": draw(tiers())}


@st.composite
def books(draw: st.DrawFn) -> PriceBook:
    """A price book of one to three plans."""
    plans = [
        {"id": f"p{plan}", "charges": [draw(charges(f"c{place}")) for place in range(draw(st.integers(1, 4)))]}
        for plan in range(draw(st.integers(1, 3)))
    ]
    return PriceBook.model_validate({
        "book": "random", "version": 1, "effective_at": "2013-01-01", "plans": plans,
        "currency": draw(st.sampled_from(["USD", "JPY", "KWD", "CLF"])),
        "default_plan": draw(st.sampled_from([None, "p0"])),
        "policies": {"zero_usage_flat": draw(st.sampled_from(["first_tier", "none"]))},
    })  # fmt: skip


@st.composite
def contracts_for(draw: st.DrawFn, book: PriceBook) -> Contracts:
    """Contracts that share out some of the subjects; a customer may have the name of a subject that it does not pay for."""
    payer = {subject: draw(st.sampled_from(["a", "x", "y", None])) for subject in SUBJECTS}
    return Contracts(
        contracts=tuple(
            Contract(
                customer=customer,
                name=customer,
                subjects=tuple(subject for subject in SUBJECTS if payer[subject] == customer),
                plan=draw(st.sampled_from([plan.id for plan in book.plans])),
                starts_on=draw(st.sampled_from([date(2012, 1, 1), date(2013, 1, 31), date(2013, 2, 1)])),
            )
            for customer in sorted({customer for customer in payer.values() if customer})
        )
    )


@st.composite
def usages(draw: st.DrawFn, book: PriceBook) -> list[tuple[str, str, Decimal | None, list[str] | None]]:
    """Rows of usage, mostly of the meters that the book charges for, also several of a subject and meter."""
    charged = [charge.meter for plan in book.plans for charge in plan.charges if not isinstance(charge, FlatCharge)]
    meters = st.sampled_from([*charged, *charged, *AGGREGATIONS])
    keys = draw(st.lists(st.tuples(st.sampled_from(SUBJECTS), meters), max_size=20))
    words = st.lists(st.sampled_from(["u1", "u2", "u3", "ü"]), max_size=3)
    return [
        (subject, meter, None, draw(words)) if meter == "users" else (subject, meter, draw(quantities), None)
        for subject, meter in keys
    ]


@st.composite
def cases(draw: st.DrawFn) -> tuple[PriceBook, Contracts, list[Any]]:
    """A price book, contracts on its plans, and usage."""
    book = draw(books())
    return book, draw(contracts_for(book)), draw(usages(book))


def usage_frame(rows: list[Any]) -> pl.DataFrame:
    text = pl.String()
    schema = {"subject": text, "meter": text, "quantity": QUANTITY, "uniques": pl.List(text)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def rated(
    rows: list[Any], book: PriceBook, contracts: Contracts, aggregations: Mapping[str, str] = AGGREGATIONS
) -> Rated:
    return rate(usage_frame(rows), book, contracts, period=PERIOD, cut=7, aggregations=aggregations)


def exactly(number: Decimal | None) -> Fraction | None:
    return None if number is None else Fraction(number)


def as_answer(result: Rated) -> tuple[list[Any], dict[tuple[str, str], Fraction]]:
    lines = [
        (
            row["customer"], row["charge"], Fraction(row["quantity"]),
            [tuple(exactly(number) for number in part.values()) for part in row["slices"]],
            Fraction(row["amount"]), row["amount_minor"],
        )
        for row in result.charges.iter_rows(named=True)
    ]  # fmt: skip
    return lines, {(subject, meter): Fraction(quantity) for subject, meter, quantity in result.unassigned.rows()}


def expected(
    rows: list[Any], book: PriceBook, contracts: Contracts
) -> tuple[list[Any], dict[tuple[str, str], Fraction]]:
    exact: list[Usage] = [(subject, meter, exactly(quantity), uniques) for subject, meter, quantity, uniques in rows]
    answer: Answer = rate_slowly(exact, book, contracts, PERIOD_END, AGGREGATIONS)
    lines = [
        (line.customer, line.charge, line.quantity, line.slices, line.amount, line.amount_minor)
        for line in answer.lines
    ]
    return lines, answer.unassigned


@given(cases())
def test_the_rater_is_the_oracle(case: tuple[PriceBook, Contracts, list[Any]]) -> None:
    """All customers at once give what one at a time gives with fractions, to the last digit."""
    book, contracts, rows = case
    result = rated(rows, book, contracts)
    assert as_answer(result) == expected(rows, book, contracts)
    assert dict(result.charges.schema) == CHARGES


@given(cases())
def test_slices_add_up(case: tuple[PriceBook, Contracts, list[Any]]) -> None:
    """Slices add up to the quantity (packages apart) and their amounts to the charge's exact amount."""
    book, contracts, rows = case
    for row in rated(rows, book, contracts).charges.iter_rows(named=True):
        assert sum(Fraction(part["amount"]) for part in row["slices"]) == Fraction(row["amount"])
        if row["model"] != "package":
            assert sum(Fraction(part["quantity"]) for part in row["slices"]) == Fraction(row["quantity"])


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_usage_changes_nothing(case: tuple[PriceBook, Contracts, list[Any]], random: Any) -> None:
    """Rows of usage in another order give the same charges, byte for byte."""
    book, contracts, rows = case
    shuffled = random.sample(rows, len(rows))
    one, other = rated(rows, book, contracts), rated(shuffled, book, contracts)
    assert one.charges.equals(other.charges)
    assert one.unassigned.equals(other.unassigned)


@given(cases())
def test_a_stored_book_rates_the_same(case: tuple[PriceBook, Contracts, list[Any]]) -> None:
    """A book and contracts that went through their canonical JSON are equal, with equal digests and charges."""
    book, contracts, rows = case
    stored = PriceBook.from_canonical(book.canonical())
    kept = Contracts.from_canonical(contracts.canonical())
    assert (stored, stored.digest, kept, kept.digest) == (book, book.digest, contracts, contracts.digest)
    assert rated(rows, stored, kept).charges.equals(rated(rows, book, contracts).charges)


@given(tiers(), quantities, quantities)
def test_graduated_is_monotone(some_tiers: list[dict[str, Any]], one: Decimal, other: Decimal) -> None:
    """More usage never costs less under graduated prices."""
    charge = {"id": "c", "model": "graduated", "meter": "total", "tiers": some_tiers}
    amounts = [amount_of(charge, quantity) for quantity in sorted([one, other])]
    assert amounts == sorted(amounts)


def test_volume_is_not_monotone() -> None:
    """Under volume prices one unit more can cost less: 15 units cost 150, 16 cost 80."""
    steps = [{"up_to": 15, "unit_price": 10}, {"up_to": None, "unit_price": 5}]
    charge = {"id": "c", "model": "volume", "meter": "total", "tiers": steps}
    assert [amount_of(charge, Decimal(used)) for used in (15, 16)] == [150, 80]


def amount_of(charge: dict[str, Any], quantity: Decimal) -> Fraction:
    """What a customer with this usage owes for one charge, by the rater; checked against the oracle."""
    plan = {"id": "p", "charges": [charge]}
    book = PriceBook.model_validate(
        {
            "book": "b",
            "version": 1,
            "effective_at": "2013-01-01",
            "currency": "USD",
            "default_plan": "p",
            "plans": [plan],
        }
    )
    amounts = rated([("a", "total", quantity, None)], book, Contracts(contracts=()), {"total": "SUM"}).charges["amount"]
    amount = Fraction(amounts[0]) if len(amounts) else Fraction(0)
    slices = slices_of(book.plans[0].charges[0], max(Fraction(quantity), Fraction(0)), book.policies.zero_usage_flat)
    assert amount == sum(part[-1] for part in slices)
    return amount
