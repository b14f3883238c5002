"""The oracle of rating where no engine publishes a number: terms, time, segments and bills, worked out by hand."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from fractions import Fraction

import pytest

from schemas.configuration import parse_yaml
from schemas.contract import Contracts
from schemas.price_book import PriceBook
from tests.golden.published_prices import AGGREGATIONS
from tests.oracles.rating.kinds import Answer, Event
from tests.oracles.rating.rate import Carried, rate_slowly

TIERS = "{id: c, model: graduated, meter: total, tiers: [{up_to: 10, unit_price: %s, flat: 3}, {up_to: null, unit_price: %s}]}"


def version(charges: str, more: str = "{}", plan: str = "{}") -> PriceBook:
    """Version 1 in dollars, in force for ever, where `more` does not say otherwise."""
    of_plan = {"id": "p", "charges": parse_yaml(f"charges: [{charges}]", "")["charges"], **parse_yaml(plan, "")}
    book = {"book": "b", "version": 1, "effective_at": "2000-01-01", "currency": "USD", "plans": [of_plan]}
    return PriceBook.model_validate({**book, **parse_yaml(more, "")})


def contract(more: str = "{}") -> Contracts:
    agreed = {"customer": "acme", "name": "Acme", "subjects": ["a", "b"], "plan": "p", "starts_on": "2020-01-01"}
    return Contracts.model_validate({"contracts": [{**agreed, **parse_yaml(more, "")}]})


def used(meter: str, at: str, value: object, subject: str = "a", position: int = 0, **dimensions: str) -> Event:
    number = str(value) if meter == "users" else Fraction(str(value))
    return Event(subject, meter, datetime.fromisoformat(at).replace(tzinfo=UTC), number, dimensions, position)


def bill(
    books: list[PriceBook],
    agreed: Contracts,
    *events: Event,
    period: tuple[str, str] = ("2024-01-01", "2024-02-01"),
    prepaid: Mapping[str, int] | None = None,
    carried: Carried | None = None,
) -> Answer:
    after, through = (date.fromisoformat(day) for day in period)
    return rate_slowly(
        events, books, agreed, after=after, through=through, aggregations=AGGREGATIONS, credits=prepaid, carried=carried
    )


def owed(answer: Answer) -> list[tuple[str, str, int]]:
    return [(row.charge, row.kind, row.left_minor) for row in answer.rows]


BASE = "{id: base, model: flat, amount: %s}"


@pytest.mark.parametrize(
    ("more", "amount"),
    [
        ("{starts_on: 2023-12-31}", 10_00),  # an existing customer: the new version holds from March on
        ("{starts_on: 2024-01-01}", 20_00),
        ("{starts_on: 2024-01-01, price_version: 1}", 10_00),
        ("{charges: {base: {amount: 7}}}", 7_00),
        ("{charges: {base: {amount: 7}}, amendments: [{'on': 2024-01-01, charges: {base: {amount: 8}}}]}", 8_00),
        ("{amendments: [{'on': 2024-01-01, price_version: 2}]}", 20_00),
        ("{currency: EUR}", 9_00),
        ("{currency: EUR, amendments: [{'on': 2024-01-01, plan: q}]}", 90),  # 100 credits of 0.009
    ],
)
def test_terms_that_hold(more: str, amount: int) -> None:
    """Version by date, pin, override, amendment, currency and pricing unit decide the amount."""
    both = "{id: base, model: flat, amount: {USD: %s, EUR: 9}}"
    beside = """currencies: [EUR], pricing_units: [{id: credits, rate: {USD: 0.01, EUR: 0.009}}]"""
    one, two = (
        version(both % price, f"{{{beside}, {dates}}}")
        for price, dates in (
            ("10", "version: 1"),
            ("20", "version: 2, effective_at: 2024-01-01, existing_customers_at: 2024-03-01"),
        )
    )
    other = {"id": "q", "charges": [{"id": "base", "model": "flat", "amount": 100, "priced_in": "credits"}]}
    books = [
        PriceBook.model_validate({**book.model_dump(), "plans": [*book.model_dump()["plans"], other]})
        for book in (one, two)
    ]
    assert [row.amount_minor for row in bill(books, contract(more)).rows] == [amount]


def test_remove_and_add() -> None:
    """A charge that is removed is not owed; one that is added is; an override of a charge that is not there says nothing."""
    more = "{remove: [base], add: [{id: extra, model: flat, amount: 1}], charges: {gone: {amount: 2}}}"
    assert owed(bill([version(BASE % 10)], contract(more))) == [("extra", "flat", 1_00)]


def test_tiers_run_on_through_a_new_price() -> None:
    """8 units at the old price, then 2 in the first tier and 4 in the second at the new one; the flat amount once."""
    #  |---- 8 at 1.00 ----|16th|-- 2 at 2.00, 4 at 5.00 --|
    new = "{amendments: [{'on': 2024-01-16, charges: {c: {tiers: [{up_to: 10, unit_price: 2, flat: 3}, {up_to: null, unit_price: 5}]}}}]}"
    events = [used("total", "2024-01-10", 8), used("total", "2024-01-16", 6)]
    answer = bill([version(TIERS % (1, 9))], contract(new), *events)
    assert [(part.quantity, part.unit_price, part.flat) for part in answer.rows[0].slices] == [
        (8, 1, 3),
        (2, 2, 0),
        (4, 5, 0),
    ]
    anew = bill([version(TIERS % (1, 9), "{policies: {tier_scope: version}}")], contract(new), *events)
    assert [(part.quantity, part.unit_price, part.flat) for part in anew.rows[0].slices] == [(8, 1, 3), (6, 2, 3)]


def test_volume_takes_the_tier_of_the_whole_period() -> None:
    """15 units in two segments are in the second tier, each at its own price of that tier."""
    book = version((TIERS % (9, 1)).replace("graduated", "volume"))
    new = "{amendments: [{'on': 2024-01-16, charges: {c: {tiers: [{up_to: 10, unit_price: 8}, {up_to: null, unit_price: 2}]}}}]}"
    answer = bill([book], contract(new), used("total", "2024-01-10", 10), used("total", "2024-01-16", 5))
    assert owed(answer) == [("c", "usage", 20_00)]


def test_a_peak_is_not_cut_by_a_new_price() -> None:
    """The greatest value of the month is sold once, on the terms at its end."""
    charge = "{id: c, model: standard, meter: peak, unit_price: 1}"
    new = "{amendments: [{'on': 2024-01-16, charges: {c: {unit_price: 2}}}]}"
    answer = bill([version(charge)], contract(new), used("peak", "2024-01-10", 9), used("peak", "2024-01-20", 4, "b"))
    assert owed(answer) == [("c", "usage", 18_00)]


def test_included_units_and_packages_run_on() -> None:
    """15 and 10 units in packages of 10, with 5 included: one package and another, not two and one."""
    charge = "{id: c, model: package, meter: total, size: 10, price: 1, included: 5}"
    new = "{amendments: [{'on': 2024-01-16, charges: {c: {price: 2}}}]}"
    answer = bill([version(charge)], contract(new), used("total", "2024-01-10", 15), used("total", "2024-01-20", 10))
    assert [(part.quantity, part.amount) for part in answer.rows[0].slices] == [(1, 1), (1, 2)]


def test_a_trial_is_free_and_does_not_move_the_tiers() -> None:
    """Ten units on the last day of the trial leave the first tier to those of the next day."""
    more = "{starts_on: 2024-01-01, trial_days: 14}"
    answer = bill(
        [version(TIERS % (1, 9))],
        contract(more),
        used("total", "2024-01-14T23:59:59", 10),
        used("total", "2024-01-15", 4),
    )
    assert [(part.label, part.amount) for part in answer.rows[0].slices] == [("trial", 0), ("", 7)]


def test_each_window_of_a_trial_is_converted_by_itself() -> None:
    """As those that are paid for: 1 and 1 in boxes of 2, begun ones whole, are two boxes."""
    charge = """{id: c, model: standard, meter: total, unit_price: 1, unit: {divide_by: 2, round: up, decimals: 0},
                 buckets: {window: hour, take: each}}"""
    events = [used("total", f"2024-01-{day}", 1) for day in ("10", "11")]
    answer = bill([version(charge)], contract("{starts_on: 2024-01-01, trial_days: 14}"), *events)
    assert [(row.quantity, row.gross) for row in answer.rows] == [(2, 0)]


def test_recurring_starts_with_what_was_there() -> None:
    """5 seats that were carried over, less 2: 3 seats; a month later still 3."""
    charge = "{id: c, model: standard, meter: total, unit_price: 1, recurring: true}"
    events, carried = [used("total", "2024-01-10", -2)], {("acme", "c", ()): Fraction(5)}
    answer = bill([version(charge)], contract(), *events, period=("2024-01-01", "2024-03-01"), carried=carried)
    assert [row.amount_minor for row in answer.rows] == [3_00, 3_00]


def test_levels_weigh_in_the_segment_in_which_they_last() -> None:
    """2 seats from the 11th on: 10 of 30 days at the old price and 10 at the new one."""
    charge = """{id: c, model: standard, meter: total, unit_price: 30, group_by: [region],
                 buckets: {window: hour, take: time_weighted}}"""
    new = "{amendments: [{'on': 2024-04-21, charges: {c: {unit_price: 60}}}]}"
    event = used("total", "2024-04-11", 2, region="eu")
    answer = bill([version(charge)], contract(new), event, period=("2024-04-01", "2024-05-01"))
    third = [(Fraction(666666667, 10**9), 30), (Fraction(666666666, 10**9), 60)]
    assert [(part.quantity, part.unit_price) for part in answer.rows[0].slices] == third


def test_a_group_is_there_where_it_was_used() -> None:
    """A use of nothing owes the first tier's flat amount of its own segment alone, where each starts anew."""
    charge = TIERS.replace("meter: total", "meter: total, group_by: [region]") % (1, 9)
    new = "{amendments: [{'on': 2024-01-16, charges: {c: {description: New}}}]}"
    answer = bill(
        [version(charge, "{policies: {tier_scope: version}}")],
        contract(new),
        used("total", "2024-01-10", 0, region="eu"),
    )
    assert owed(answer) == [("c", "usage", 3_00)]


@pytest.mark.parametrize(
    ("zone", "more", "periods"),
    [
        ("Asia/Kathmandu", "cycle: {every: month}", ["2024-01-31T18:15", "2024-02-29T18:15"]),
        ("America/New_York", "cycle: {every: month}", ["2024-02-01T05:00", "2024-03-01T05:00"]),
        ("America/Havana", "cycle: {every: week}", ["2024-03-04T05:00", "2024-03-11T04:00"]),  # the clock skips midnight of the 10th
        ("UTC", "starts_on: 2023-10-31, cycle: {every: month, anchor: anniversary}", ["2024-01-31T00:00", "2024-02-29T00:00", "2024-03-31T00:00"]),
        ("UTC", "starts_on: 2023-10-15, anchor_day: 31, cycle: {every: month, anchor: anniversary}", ["2024-01-31T00:00", "2024-02-29T00:00"]),
        ("UTC", "starts_on: 2020-02-29, cycle: {every: year, anchor: anniversary}", ["2023-02-28T00:00", "2024-02-29T00:00", "2025-02-28T00:00"]),
        ("UTC", "starts_on: 2023-11-30, cycle: {every: quarter, anchor: anniversary}", ["2023-11-30T00:00", "2024-02-29T00:00", "2024-05-30T00:00"]),
        ("Australia/Lord_Howe", "cycle: {every: month}", ["2024-03-31T13:00", "2024-04-30T13:30"]),  # half an hour less in April
    ],
)  # fmt: skip
def test_periods(zone: str, more: str, periods: list[str]) -> None:
    """Bills fall on the starts of days in the customer's zone; the day of an anniversary is clamped and comes back."""
    answer = bill([version(BASE % 1)], contract(f"{{time_zone: {zone}, {more}}}"), period=("2020-01-01", "2026-01-01"))
    bounds = {row.start for row in answer.rows} | {row.end for row in answer.rows}
    instants = [datetime.fromisoformat(instant).replace(tzinfo=UTC) for instant in periods]
    first, last = instants[0], instants[-1]
    assert sorted(bound for bound in bounds if first <= bound <= last) == instants


def test_seconds_know_of_the_clock_change() -> None:
    """From the 15th of March 2024 in Berlin: 17 days less an hour, of 31 days less an hour."""
    answer = bill(
        [version(BASE % 743)],
        contract("{starts_on: 2024-03-15, time_zone: Europe/Berlin}"),
        period=("2024-03-01", "2024-04-01"),
    )
    assert [row.amount for row in answer.rows] == [407]


def test_plan_and_contract_in_whole_minor_units() -> None:
    """Discount, maximum and minimum of the plan, then of the contract, over the rows that there are by then."""
    plan = "{discounts: [{id: d, amount: 5, charges: [base]}], maximum_spend: 4}"
    answer = bill(
        [version(f"{BASE % 8}, {{id: more, model: flat, amount: 9}}", plan=plan)], contract("{minimum_spend: 6}")
    )
    assert owed(answer) == [("base", "flat", 1_00), ("more", "flat", 3_00), ("", "minimum_spend", 2_00)]


def test_sla_credit_and_manual_line() -> None:
    """The lowest bound that was missed gives the percentage of what the charges come to; a line stands beside them."""
    more = """{sla: [{id: uptime, meter: mean, credits: [{below: 99.9, percent: 10}, {below: 99, percent: 25}]}],
               lines: [{id: setup, description: Set-up, amount: 2, 'on': 2024-01-31}, {id: next, description: N, amount: 2, 'on': 2024-02-01}]}"""
    answer = bill([version(BASE % 10)], contract(more), used("mean", "2024-01-10", 97), used("mean", "2024-01-11", 100))
    assert owed(answer) == [("base", "flat", 10_00), ("uptime", "sla_credit", -2_50), ("setup", "manual", 2_00)]


def test_what_is_paid_in_advance_is_on_the_rows_of_its_period() -> None:
    """Rows are those of periods, whichever bill takes them."""
    book = version("{id: base, model: flat, amount: 31, pay: advance}, {id: rent, model: flat, amount: 31}")
    answer = bill([book], contract("{starts_on: 2024-01-17, ends_on: 2024-02-15}"), period=("2024-01-01", "2024-03-01"))
    assert [(row.charge, row.start.day, row.amount_minor) for row in answer.rows] == [
        ("base", 17, 15_00), ("rent", 17, 15_00), ("base", 1, 14_97), ("rent", 1, 14_97),
    ]  # fmt: skip


@pytest.mark.parametrize(("policy", "tax"), [("at_use", 2_00), ("at_top_up", 1_40)])
def test_prepaid_credits(policy: str, tax: int) -> None:
    """Credits are spent on what is left; only those that were taxed at top-up lower the tax base."""
    book = version(
        BASE % 10, f"{{tax: {{mode: exclusive, name: VAT, rate_percent: 20}}, policies: {{prepaid_tax: {policy}}}}}"
    )
    answer = bill([book], contract(), prepaid={"acme": 3_00})
    assert ([row.net_minor for row in answer.rows], [one.tax_minor for one in answer.taxes]) == ([7_00], [tax])


def test_groups_cells_and_usage_of_nobody() -> None:
    """Each group has tiers of its own; a matrix takes the first cell; what has no cell or no payer is told."""
    matrix = "{id: m, model: matrix, meter: total, dimensions: [region], cells: [{when: {region: eu}, unit_price: 2}, {when: {region: [eu, us]}, unit_price: 1}]}"
    grouped = (TIERS % (1, 9)).replace("meter: total", "meter: total, group_by: [region]")
    events = [used("total", "2024-01-10", 4, "a", 1, region="eu"), used("total", "2024-01-10", 3, "b", 2, region="us"),
              used("total", "2024-01-10", 5, "b", 3), used("total", "2024-01-10", 5, "stranger", 4)]  # fmt: skip
    answer = bill([version(f"{matrix}, {grouped}")], contract(), *events)
    assert [(row.charge, row.group, row.amount) for row in answer.rows] == [
        ("m", {}, 11), ("c", {"region": ""}, 8), ("c", {"region": "eu"}, 7), ("c", {"region": "us"}, 6),
    ]  # fmt: skip
    assert [(one.position, one.charge) for one in answer.unassigned] == [(3, "m"), (4, None)]


def test_default_plan() -> None:
    """A subject without a contract pays in the months in which it uses something, in UTC."""
    book = version(BASE % 10, "{default_plan: p}")
    answer = bill(
        [book], Contracts(contracts=()), used("total", "2024-01-31T23:59", 1, "z"), period=("2023-12-01", "2024-03-01")
    )
    assert [(row.customer, row.start.month, row.amount_minor) for row in answer.rows] == [("z", 1, 10_00)]


@pytest.mark.parametrize(
    ("take", "quantity"),
    [("take: sum", 15), ("take: max", 8), ("take: average", "0.483870968"), ("take: percentile, percent: 100", 8),
     ("take: percentile, percent: 94", 7), ("take: percentile, percent: 93", 0), ("take: time_weighted", "7.483870968")],
)  # fmt: skip
def test_buckets(take: str, quantity: object) -> None:
    """7 units on the 16th at noon and 8 on the 17th, of 31 days; a level holds from the start of its window on."""
    charge = f"{{id: c, model: standard, meter: total, unit_price: 1, buckets: {{window: day, {take}}}}}"
    answer = bill([version(charge)], contract(), used("total", "2024-01-16T12:00", 7), used("total", "2024-01-17", 8))
    assert sum(row.quantity for row in answer.rows) == Fraction(str(quantity))
