"""The charge models over parts, by published examples of other billing engines and by laws."""

from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from rating.frames import PARTS
from rating.models import slices_of
from rating.prices import Term
from schemas.charges import Charge
from schemas.money import AMOUNT, QUANTITY, rounded_minor
from schemas.plan import Policies, ZeroUsageFlat

CHARGE: TypeAdapter[Charge] = TypeAdapter(Charge)
DEFAULTS = Policies()
NO_FLAT = Policies(zero_usage_flat=ZeroUsageFlat.NONE)
D = Decimal


def term(model: str, policies: Policies = DEFAULTS, **keys: Any) -> Term:
    return Term(CHARGE.validate_python({"id": "c", "model": model, "meter": "m", **keys}), policies)


def tiered(model: str, *tiers: tuple[Any, ...], policies: Policies = DEFAULTS) -> Term:
    """Tiers as (up_to, unit price, flat, cap), the last ones if there are any."""
    price = "rate_percent" if model == "graduated_percentage" else "unit_price"
    names = ("up_to", price, "flat", "cap")
    return term(model, policies, tiers=[dict(zip(names, tier, strict=False)) for tier in tiers])


def part(quantity: Any, **columns: Any) -> dict[str, Any]:
    """A part that opens its run and is all of it, but for the columns that say otherwise."""
    whole = {
        "row": 0,
        "segment": 0,
        "term": 0,
        "cell": 0,
        "before": 0,
        "total": quantity,
        "opens": True,
        "trial": False,
    }
    return {**whole, "quantity": quantity, **columns}


def run(*quantities: Any, **columns: Any) -> list[dict[str, Any]]:
    """Parts that follow each other in one run."""
    total = sum(map(D, quantities))
    before = [sum(map(D, quantities[:number]), D(0)) for number in range(len(quantities))]
    return [
        part(quantity, before=used, total=total, opens=number == 0, **columns)
        for number, (quantity, used) in enumerate(zip(quantities, before, strict=True))
    ]


def frame(parts: list[dict[str, Any]]) -> pl.DataFrame:
    rows = [{name: each.get(name) for name in PARTS} for each in parts]
    exact = ("before", "quantity", "total", "bounded")
    rows = [{name: D(v) if name in exact and v is not None else v for name, v in row.items()} for row in rows]
    return pl.DataFrame(rows, schema=PARTS)


def amounts(terms: Term | list[Term], *parts: dict[str, Any]) -> list[Decimal]:
    """The amount of each part, which its slices add up to."""
    priced = slices_of(frame(list(parts)), terms if isinstance(terms, list) else [terms])
    slices = priced.slices
    assert slices["part"].is_sorted()
    sums = [sum(slices.filter(part=at)["amount"], D(0)) for at in range(len(parts))]
    assert sums == priced.amounts.to_list()
    return sums


def amount(terms: Term, quantity: Any, **columns: Any) -> Decimal:
    return amounts(terms, part(quantity, **columns))[0]


def sold(terms: Term | list[Term], *parts: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Quantity, unit price, flat and amount of each slice."""
    priced = slices_of(frame(list(parts)), terms if isinstance(terms, list) else [terms])
    return priced.slices.select("quantity", "unit_price", "flat", "amount").rows()


@pytest.mark.parametrize(
    ("used", "parts"), [("100", ["100"]), ("101", ["100", "1"]), ("750", ["100", "400", "250"]), ("0.5", ["0.5"])]
)
def test_the_unit_on_a_bound_is_the_lower_tiers(used: str, parts: list[str]) -> None:
    """Tiers are open below and closed above."""
    charge = tiered("graduated", (100, 3), (500, 2), (None, 1))
    assert [quantity for quantity, *_ in sold(charge, part(used))] == [D(each) for each in parts]


def test_any_fraction_enters_a_tier() -> None:
    """5 units owe the first tier's flat amount only; 5.001 units owe the second's as well (OpenMeter)."""
    charge = tiered("graduated", (5, 1, 10), (None, 2, 20))
    assert amount(charge, "5") == D(15)
    assert amount(charge, "5.001") == D("35.002")


def test_graduated_and_volume_differ_as_stripe_publishes() -> None:
    """6 units of 5 at 7 and more at 6.50: graduated 41.50, volume 39 (Stripe)."""
    terms = [(5, 7), (10, "6.50"), (None, 6)]
    assert amount(tiered("graduated", *terms), 6) == D("41.50")
    assert amount(tiered("volume", *terms), 6) == D(39)
    assert amount(tiered("graduated", *terms), 20) == D("127.50")
    assert amount(tiered("volume", *terms), 20) == D(120)


@pytest.mark.parametrize("model", ["graduated", "volume"])
def test_zero_usage_owes_the_first_flat_by_policy(model: str) -> None:
    """Without usage the part that opens the run owes the first tier's flat amount, or nothing, as the book says."""
    terms = [(10, 1, 7), (None, 2, 9)]
    assert sold(tiered(model, *terms), part(0)) == [(0, 1, 7, 7)]
    assert sold(tiered(model, *terms), part(0, opens=False)) == []
    assert sold(tiered(model, *terms, policies=NO_FLAT), part(0)) == []


@pytest.mark.parametrize("policies", [Policies(), NO_FLAT])
def test_a_flat_amount_is_owed_by_the_part_that_enters_its_tier(policies: Policies) -> None:
    """Three parts of a run, and the flat amounts 7 and 9 of tiers up to 10 and without end."""
    #   run      0 ......... 10 ........
    #   parts    [ 4  ][ 6    ][ 1 ][ 2 ]
    #   owes       7             9
    charge = tiered("graduated", (10, 1, 7), (None, 2, 9), policies=policies)
    assert amounts(charge, *run(4, 6, 1, 2)) == [11, 6, 11, 4]


@pytest.mark.parametrize("policies", [Policies(), NO_FLAT])
def test_the_first_part_that_sells_owes_the_first_flat(policies: Policies) -> None:
    """The part that opens the run sells nothing: the flat amount waits for one that does, whatever zero usage owes."""
    charge = tiered("graduated", (10, 1, 7), (None, 2, 9), policies=policies)
    assert amounts(charge, *run(0, 3, 1)) == [0, 10, 1]


def test_tiers_run_on_at_the_prices_of_each_segment() -> None:
    """80 units at the old terms, then 40 at the new: 20 of them still in the first tier."""
    #   run          0 ........... 80 .. 100 ... 120
    #   old terms    [     at 1     ]
    #   new terms                   [ at 3 ][at 2]
    old, new = tiered("graduated", (100, 1), (None, "0.5")), tiered("graduated", (100, 3), (None, 2))
    parts = run(80, 40)
    parts[1]["term"] = 1
    assert amounts([old, new], *parts) == [80, 100]


def test_a_cap_bounds_a_tier_with_its_flat_amount() -> None:
    """Up to 10 units at 3 and 5 flat, at most 20: also where a run is sold in parts."""
    charge = tiered("graduated", (10, 3, 5, 20), (None, 1, 2))
    assert amount(charge, 4) == D(17)
    assert amount(charge, 10) == D(20)
    assert amount(charge, 12) == D(24)
    assert amounts(charge, *run(4, 3, 5)) == [17, 3, 4]
    assert sold(charge, part(10)) == [(10, 3, 5, 20)]


@pytest.mark.parametrize(("used", "amount_"), [("15", "150"), ("15.000000001", "75.000000005"), ("16", "80")])
def test_volume_sells_all_in_one_tier(used: str, amount_: str) -> None:
    """The whole quantity has the price of its tier: 15 units cost 150, 16 cost 80."""
    charge = tiered("volume", (15, 10), (None, 5))
    assert [(quantity, each) for quantity, *_, each in sold(charge, part(used))] == [(D(used), D(amount_))]


def test_volume_finds_its_tier_by_the_total_of_the_run() -> None:
    """Two parts of 10 are 20 in the second tier; the part that opens owes that tier's flat amount."""
    charge = tiered("volume", (15, 10, 1), (None, 5, 2, 97))
    assert amounts(charge, *run(10, 10)) == [52, 45]


def test_volume_leaves_no_hole_between_whole_bounds() -> None:
    """A fraction between the bounds 100 and 101 falls in the second tier, where Meteroid finds none."""
    assert amount(tiered("volume", (100, 2), (200, 1, 3), (None, 0)), "100.5") == D("103.5")


@pytest.mark.parametrize(
    ("used", "rounding", "count"),
    [("121", "up", 12), ("121", "down", 11), ("10", "up", 0), ("10.000000001", "up", 1), ("0", "up", 0)],
)
def test_free_units_come_off_before_packages(used: str, rounding: str, count: int) -> None:
    """121 units, 10 free, in tens: 111 are packed into 12 packages, or 11 full ones (Lago)."""
    charge = term("package", size=10, price=3, free_units=10, round=rounding)
    assert sold(charge, part(used)) == ([(count, 3, 0, 3 * count)] if count else [])


def test_packages_run_on() -> None:
    """A part takes the packages that the running total takes with it, less those taken before."""
    charge = term("package", size=10, price=3, free_units=5)
    assert [each / 3 for each in amounts(charge, *run(3, 3, 8, 2))] == [0, 1, 0, 1]


def test_packages_of_large_quantities_are_counted_exactly() -> None:
    """The division has no rounding, where a float would have lost the last unit."""
    charge = term("package", size=3, price="0.000000000001")
    assert sold(charge, part("30000000000000001"))[0][::3] == (D(10**16 + 1), D("10000.000000000001"))


def test_a_package_of_converted_units_is_a_tier_of_openmeter() -> None:
    """7400 units in thousands, rounded up, are 8: 5 at 1.00 and 3 at 0.50 are 6.50 (OpenMeter's unit_config)."""
    assert amount(tiered("graduated", (5, 1), (None, "0.5")), 8) == D("6.5")


def test_a_percentage_has_a_fee_an_event() -> None:
    """1,000 at 1.2 percent and 2 a fee for 4 events that are not free: 12 and 8 (Lago)."""
    charge = term("percentage", rate_percent="1.2", fixed=2)
    assert sold(charge, part(1000, fees=4)) == [(1000, D("0.012"), 0, 12), (4, 2, 0, 8)]
    assert amount(charge, 0, fees=0) == 0
    assert amount(term("percentage", rate_percent=0, fixed=2), 1000, fees=4) == 8


def test_what_bounds_of_events_change_is_a_slice() -> None:
    """Bounds may lower an amount or raise it: it is told apart, below zero where a maximum took something off."""
    charge = term("percentage", rate_percent=10, event_minimum=1, event_maximum=5)
    priced = slices_of(frame([part(100, fees=2, bounded="-2.5"), part(1, fees=2, bounded="1.9")]), [charge])
    assert priced.amounts.to_list() == [D("7.5"), D(2)]
    assert priced.slices["label"].to_list() == ["", "event bounds"] * 2


def test_graduated_percentages_have_tiers_of_money() -> None:
    """The first 1,000 at 2.5 percent and 0.30 flat, the rest at 1 percent."""
    assert amount(tiered("graduated_percentage", (1000, "2.5", "0.3"), (None, 1)), 1500) == D("30.3")


def test_a_dynamic_charge_multiplies_what_the_events_carry() -> None:
    """13.3333 of money, a third more."""
    assert amount(term("dynamic", multiplier="1.5"), "13.3333") == D("19.99995")


def test_a_capacity_is_owed_without_usage_and_its_overage_by_unit() -> None:
    """100 units for 50, also unused and under any policy; 3 each above."""
    charge = term("capacity", NO_FLAT, capacity=100, amount=50, overage_price=3)
    assert amount(charge, 0) == 50
    assert amount(charge, 100) == 50
    assert amounts(charge, *run(90, 20, 5)) == [50, 30, 15]
    assert sold(charge, part(110)) == [(100, 0, 50, 50), (10, 3, 0, 30)]


def test_each_cell_of_a_matrix_has_its_price() -> None:
    """Parts name the cell that took them; the number after the last cell is the default price."""
    cells = [
        {"when": {"region": ["eu", "us"], "size": "l"}, "unit_price": 3},
        {"when": {"region": "eu"}, "unit_price": 2},
    ]
    charge = term("matrix", dimensions=["region", "size"], cells=cells, default_price=1)
    parts = [part(10, cell=0), part(10, cell=1), part(10, cell=2)]
    other = term("standard", unit_price=7)
    priced = slices_of(frame([*parts, part(1, term=1)]), [charge, other])
    assert priced.amounts.to_list() == [30, 20, 10, 7]
    assert priced.slices["label"].to_list() == ["region=eu|us,size=l", "region=eu", "default", ""]


def test_usage_that_a_matrix_has_no_price_for_is_no_part() -> None:
    """It is told as unassigned before; a part of it is a fault of ours."""
    cells = [{"when": {"region": "eu"}, "unit_price": 2}]
    with pytest.raises(AssertionError):
        slices_of(frame([part(1, cell=1)]), [term("matrix", dimensions=["region"], cells=cells)])


def test_a_trial_sells_everything_for_nothing() -> None:
    """One slice with the whole quantity, whatever the model owes otherwise."""
    terms = [tiered("graduated", (10, 1, 7), (None, 2, 9)), term("capacity", capacity=1, amount=50, overage_price=3)]
    parts = [part(20, trial=True), part(20, term=1, trial=True), part(0, term=1, trial=True)]
    assert sold(terms, *parts) == [(20, 0, 0, 0), (20, 0, 0, 0)]
    assert slices_of(frame(parts), terms).slices["label"].to_list() == ["trial", "trial"]


def test_slices_are_sorted_by_part_and_then_by_tier() -> None:
    """Charges of many shapes among each other: every part finds its own terms."""
    terms = [
        tiered("graduated", (1, 1), (None, 2)),
        term("standard", unit_price=3),
        tiered("graduated", (2, 10), (None, 20)),
        term("package", size=1, price=100),
    ]
    parts = [part(3, term=number % 4) for number in range(12)]
    assert amounts(terms, *parts) == [5, 9, 40, 300] * 3
    assert sold(terms, *parts)[:5] == [(1, 1, 0, 1), (2, 2, 0, 4), (3, 3, 0, 9), (2, 10, 0, 20), (1, 20, 0, 20)]


def test_no_parts_have_no_slices() -> None:
    """An empty frame, with all columns."""
    priced = slices_of(frame([]), [term("standard", unit_price=3)])
    assert (len(priced.slices), len(priced.amounts), priced.amounts.dtype) == (0, 0, AMOUNT)


def test_a_price_may_be_a_fraction_of_a_cent() -> None:
    """30 units at 0.05 cents are 1.5 cents exactly, and 2 cents when rounded, once."""
    exact = amount(term("standard", unit_price="0.0005"), "30")
    assert exact == D("0.015")
    assert pl.select(rounded_minor(pl.lit(exact, AMOUNT), 2)).item() == 2


@pytest.mark.parametrize(
    ("charge", "parts"),
    [
        (term("standard", unit_price=10**9), [part(10**9)]),
        (tiered("graduated", (1, 9 * 10**16), (None, 9 * 10**16)), [part(2)]),
        (tiered("graduated", (1, 0, 9 * 10**16), (None, 0, 9 * 10**16)), [part(2)]),
        (term("standard", unit_price=1), [part(6 * 10**28, before=6 * 10**28)]),
        (term("package", size="0.000000001", price=1), [part(10**21)]),
    ],
)
def test_an_amount_that_does_not_fit_is_an_error(charge: Term, parts: list[dict[str, Any]]) -> None:
    """More whole digits than a number holds raise; nothing wraps around or is cut off."""
    with pytest.raises(pl.exceptions.PolarsError):
        slices_of(frame(parts), [charge])


MODELS = [
    tiered("graduated", (10, 3, 5, 20), (100, 1, 2), (None, "0.5", 9, 30)),
    tiered("graduated", (10, 3, 5), (None, 1, 2), policies=NO_FLAT),
    tiered("graduated_percentage", (50, "2.9", "0.3"), (None, "1.25")),
    term("package", size="7.5", price=3, free_units="2.25"),
    term("package", size="7.5", price=3, round="down"),
    term("capacity", capacity=40, amount=50, overage_price=3),
    term("standard", unit_price="0.000000000001"),
]
QUANTITIES = st.decimals(min_value=0, max_value=200, places=9)


@settings(max_examples=40)
@given(st.lists(QUANTITIES, min_size=1, max_size=5), st.sampled_from(MODELS))
def test_parts_add_up_to_the_whole(quantities: list[Decimal], charge: Term) -> None:
    """What follows each other in a run costs what it costs at once."""
    assert sum(amounts(charge, *run(*quantities))) == amount(charge, sum(quantities))


@settings(max_examples=40)
@given(QUANTITIES, QUANTITIES, st.sampled_from(MODELS))
def test_more_never_costs_less(one: Decimal, other: Decimal, charge: Term) -> None:
    """All models but volume are monotone; a slice is never below zero."""
    less, more = amounts(charge, *[part(quantity) for quantity in sorted((one, other))])
    assert 0 <= less <= more


@settings(max_examples=40)
@given(QUANTITIES, QUANTITIES)
def test_tiers_sell_exactly_the_quantity(before: Decimal, quantity: Decimal) -> None:
    """Wherever a part stands in its run."""
    charge = tiered("graduated", (10, 3), (100, 1), (None, "0.5"))
    assert sum(each for each, *_ in sold(charge, part(quantity, before=before))) == quantity


def test_quantities_are_of_the_frames_own_type() -> None:
    """The slices have the columns and types that the frames promise."""
    from rating.frames import SLICES

    priced = slices_of(frame([part(1)]), [term("standard", unit_price=3)])
    assert dict(priced.slices.schema) == {name: pl.String if name == "label" else kind for name, kind in SLICES.items()}
    assert priced.slices.schema["quantity"] == QUANTITY
