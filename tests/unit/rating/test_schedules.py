"""Billing periods and segments of customers, from price books and contracts."""

from datetime import UTC, date, datetime

import pytest

from rating.books import Books
from rating.calendar import Days
from rating.schedules import Period, Scheduler
from schemas.contract import Contracts, parse_contracts
from schemas.price_book import PriceBook, parse_price_book

METERS = {"calls": "SUM", "seats": "MAX"}
DESK = "{id: desk, model: flat, amount: 10}"
CALLS = "{id: calls, model: standard, meter: calls, unit_price: 1}"
SEATS = "{id: seats, model: standard, meter: seats, unit_price: 5}"


def book(version: int, effective_at: str, charges: str, plan: str = "", more: str = "") -> PriceBook:
    plans = f"[{{id: pro, charges: [{charges}]{plan}}}, {{id: big, charges: [{charges}], cycle: {{every: year}}}}]"
    head = f"book: b, version: {version}, effective_at: {effective_at}, currency: USD{more}"
    return parse_price_book(f"{{{head}, plans: {plans}}}", "book", list(METERS))


def contract(more: str = "", starts_on: str = "2025-06-01") -> Contracts:
    return parse_contracts(
        f"contracts: [{{customer: a, name: A, subjects: [a], plan: pro, starts_on: {starts_on}{more}}}]", "contracts"
    )


def schedule(
    books: list[PriceBook], contracts: Contracts, after: str, through: str, *, advance: bool = False
) -> tuple[Period, ...]:
    scheduler = Scheduler(
        Books(books),
        contracts,
        after=date.fromisoformat(after),
        through=date.fromisoformat(through),
        aggregations=METERS,
        advance=advance,
    )
    return scheduler.of(contracts.contracts[0] if contracts.contracts else None)


def shown(period: Period) -> list[str]:
    """Each segment as: charge, first and last day, fraction, run."""
    return [
        f"{each.charge.id} {each.days.start:%m-%d}..{each.days.end:%m-%d} v{each.terms.book.version} run {each.run}"
        + (" trial" if each.trial else "")
        for each in period.segments
    ]


def test_a_price_version_cuts_what_it_changes() -> None:
    """A charge that is the same in both versions stays whole, and so does one whose quantity does not add up."""
    #             1 Jan           15 Jan          1 Feb
    # desk          [------------ version 1 -------)
    # calls         [-- version 1 --)[- version 2 -)   one run
    # seats (MAX)   [------------ version 2 -------)
    dearer = CALLS.replace("1}", "2}")
    books = [
        book(1, "2025-01-01", f"{DESK}, {CALLS}, {SEATS}"),
        book(2, "2026-01-15", f"{DESK}, {dearer}, {SEATS.replace('5}', '6}')}"),
    ]
    (january,) = schedule(books, contract(), "2026-01-01", "2026-02-01")
    assert shown(january) == [
        "desk 01-01..02-01 v1 run 1",
        "calls 01-01..01-15 v1 run 2",
        "calls 01-15..02-01 v2 run 2",
        "seats 01-01..02-01 v2 run 3",
    ]
    assert january.days == Days(date(2026, 1, 1), date(2026, 2, 1))


def test_tiers_start_anew_with_a_version_where_the_book_says_so() -> None:
    """With tier_scope: version, each segment is a run of its own."""
    scope = ", policies: {tier_scope: version}"
    books = [
        book(1, "2025-01-01", CALLS, more=scope),
        book(2, "2026-01-15", CALLS.replace("1}", "2}"), more=scope),
    ]
    (january,) = schedule(books, contract(), "2026-01-01", "2026-02-01")
    assert shown(january) == ["calls 01-01..01-15 v1 run 1", "calls 01-15..02-01 v2 run 2"]


def test_existing_customers_change_later() -> None:
    """A contract that began before a version's date has it from its date for existing customers on."""
    books = [
        book(1, "2025-01-01", CALLS),
        book(2, "2026-01-01", CALLS.replace("1}", "2}"), more=", existing_customers_at: 2026-01-20"),
    ]
    (old,) = schedule(books, contract(), "2026-01-01", "2026-02-01")
    (new,) = schedule(books, contract(starts_on="2026-01-10"), "2026-01-01", "2026-02-01")
    assert shown(old) == ["calls 01-01..01-20 v1 run 1", "calls 01-20..02-01 v2 run 1"]
    assert shown(new) == ["calls 01-10..02-01 v2 run 1"]


def test_start_end_and_trial_cut_a_period() -> None:
    """The first period begins with the contract, the last ends with it; a trial is a segment of its own."""
    books = [book(1, "2025-01-01", DESK)]
    contracts = contract(", trial_days: 5, ends_on: 2026-02-10", starts_on="2026-01-10")
    january, february = schedule(books, contracts, "2026-01-01", "2026-03-01")
    assert shown(january) == ["desk 01-10..01-15 v1 run 1 trial", "desk 01-15..02-01 v1 run 2"]
    assert [(each.numerator, each.denominator) for each in january.segments] == [
        (5 * 86400, 31 * 86400),
        (17 * 86400, 31 * 86400),
    ]
    assert shown(february) == ["desk 02-01..02-10 v1 run 1"]
    assert february.fraction == (9 * 86400, 28 * 86400)


def test_a_change_of_the_cycle_ends_the_period() -> None:
    """A customer who changes to a yearly plan has a month that ends there, and a year that begins there."""
    books = [book(1, "2025-01-01", DESK)]
    contracts = contract(", amendments: [{on: 2026-01-15, plan: big}]")
    periods = schedule(books, contracts, "2026-01-01", "2027-01-01")
    assert [(str(each.days.start), str(each.days.end)) for each in periods] == [
        ("2026-01-01", "2026-01-15"),
        ("2026-01-15", "2027-01-01"),
    ]
    assert periods[1].full == Days(date(2026, 1, 1), date(2027, 1, 1))


def test_periods_end_where_the_customer_is() -> None:
    """A month of Kathmandu ends 5:45 h before that of UTC."""
    books = [book(1, "2025-01-01", DESK)]
    (january,) = schedule(books, contract(", time_zone: Asia/Kathmandu"), "2026-01-01", "2026-02-01")
    assert january.start_at == datetime(2025, 12, 31, 18, 15, tzinfo=UTC)
    assert january.end_at == datetime(2026, 1, 31, 18, 15, tzinfo=UTC)


def test_the_default_plan_waits_for_a_book() -> None:
    """Before a book has a default plan, a subject without a contract has no period."""
    books = [book(1, "2026-01-15", DESK, more=", default_plan: pro")]
    (january,) = schedule(books, Contracts(contracts=()), "2026-01-01", "2026-02-01")
    assert shown(january) == ["desk 01-15..02-01 v1 run 1"]


def test_a_contract_needs_a_book_for_all_of_a_period() -> None:
    """A book that comes in the middle of a billed period is an error; before it, nobody asks."""
    books = [book(1, "2026-01-15", DESK)]
    (february,) = schedule(books, contract(), "2026-02-01", "2026-03-01")
    assert shown(february) == ["desk 02-01..03-01 v1 run 1"]
    with pytest.raises(LookupError, match="no version of its price book is in force"):
        schedule(books, contract(), "2026-01-01", "2026-02-01")


def test_contracts_that_say_the_same_share_a_schedule() -> None:
    """Whose a contract is makes no other schedule."""
    listed = ", ".join(
        f"{{customer: c{n}, name: N, subjects: [s{n}], plan: pro, starts_on: 2025-06-01}}" for n in range(3)
    )
    contracts = parse_contracts(f"contracts: [{listed}]", "contracts")
    scheduler = Scheduler(
        Books([book(1, "2025-01-01", DESK)]), contracts,
        after=date(2026, 1, 1), through=date(2026, 2, 1), aggregations=METERS,
    )  # fmt: skip
    assert len({id(scheduler.of(each)) for each in contracts.contracts}) == 1


def test_what_is_paid_in_advance_comes_with_the_bill_before() -> None:
    """With advance, a bill has the flat charges of the month that begins, and of a first month that has begun."""
    fee = DESK.replace("}", ", pay: advance}")
    books = [book(1, "2025-01-01", f"{fee}, {CALLS}")]
    january, february = schedule(books, contract(), "2026-01-01", "2026-02-01", advance=True)
    assert shown(january) == ["desk 01-01..02-01 v1 run 1", "calls 01-01..02-01 v1 run 2"]
    assert shown(february) == ["desk 02-01..03-01 v1 run 1"]
    new = contract(starts_on="2026-01-20, cycle: {every: month, anchor: anniversary}")
    (begun,) = schedule(books, new, "2026-01-01", "2026-02-01", advance=True)
    assert shown(begun) == ["desk 01-20..02-20 v1 run 1"]
