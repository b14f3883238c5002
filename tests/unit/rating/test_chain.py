"""The chain from gross amounts to what is owed, by examples of other billing engines."""

from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rating.allocation import allocated
from rating.chain import BILLS, CHARGED, LINES, Chained, chain
from rating.discounts import Level
from rating.prices import Term
from schemas.charges import Commitment, Discount, StandardCharge
from schemas.plan import Policies

D = Decimal


def term(charge: str = "c", **keys: Any) -> Term:
    return Term(
        StandardCharge.model_validate({"id": charge, "model": "standard", "meter": "m", "unit_price": 1, **keys})
    )


def discount(**keys: Any) -> Discount:
    return Discount.model_validate({"id": "d", **keys})


def commitment(amount: Any, **keys: Any) -> Commitment:
    return Commitment.model_validate({"amount": amount, **keys})


def chained(
    rows: list[dict[str, Any]] | list[str],
    terms: list[Term] | None = None,
    *bills: dict[str, Any],
    levels: list[Level] | None = None,
    policies: list[Policies] | None = None,
    buckets: list[tuple[int, int, str]] | None = None,
) -> Chained:
    """Rows are gross amounts of bill 0 and term 0, or say otherwise."""
    plain = {"bill": 0, "term": 0, "numerator": 1, "denominator": 1}
    listed = [{**plain, "gross": row} if isinstance(row, str) else {**plain, **row} for row in rows]
    for row in listed:
        row["gross"] = D(row["gross"])
    plain = {"owner": 0, "currency": "USD", "policies": 0, "numerator": 1, "denominator": 1, "prepaid_minor": 0}
    frame = pl.DataFrame([{**plain, **bill} for bill in bills or ({},)], schema=BILLS)
    split = None
    if buckets is not None:
        schema = {"row": pl.UInt32, "bucket_at": pl.Int64, "amount": CHARGED["gross"]}
        split = pl.DataFrame([(row, at, D(amount)) for row, at, amount in buckets], schema=schema, orient="row")
        split = split.with_columns(pl.col("bucket_at").cast(pl.Datetime("us", "UTC")))
    return chain(
        pl.DataFrame(listed, schema=CHARGED), frame, terms or [term()], levels or [], policies or [Policies()], split
    )


def owed(found: Chained) -> list[tuple[str, str, int]]:
    return found.lines.select("level", "kind", "net_minor").rows()


def test_without_terms_an_amount_is_rounded() -> None:
    """Nothing is taken off or added."""
    found = chained(["1.005", "0"])
    assert found.lines.row(0, named=True) == {
        "bill": 0, "row": 0, "kind": "charge", "level": "charge", "gross": D("1.005"), "discount": 0,
        "amount": D("1.005"), "amount_minor": 101, "shared_minor": 0, "credit_minor": 0, "net_minor": 101,
        "tax_base_minor": 101, "beside": None,
    }  # fmt: skip
    assert found.lines.schema == LINES
    assert found.applied.is_empty()


def test_amounts_are_rounded_as_currency_and_policy_say() -> None:
    """A half cent up or to even; yen have no cents, dinars have mills."""
    policies = [Policies(), Policies.model_validate({"rounding": "half_even"})]
    bills = [{}, {"policies": 1}, {"currency": "JPY"}, {"currency": "KWD"}]
    found = chained([{"bill": bill, "gross": "10.125"} for bill in range(4)], None, *bills, policies=policies)
    assert found.lines["amount_minor"].to_list() == [1013, 1012, 10, 10125]


def test_discounts_take_of_what_is_left_in_the_order_written() -> None:
    """10 percent of 100, then 30, then 50 percent of the plan and 10 percent of the contract."""
    terms = [term(discounts=[discount(percent=10), discount(id="e", amount=30), discount(id="u", units=5)])]
    levels = [Level((discount(id="p", percent=50),)), Level((discount(id="k", percent=10),))]
    found = chained(["100"], terms, {"plan": 0, "contract": 1}, levels=levels)
    assert found.applied.drop("line").rows() == [
        ("charge", "discount", "d", -10),
        ("charge", "discount", "e", -30),
        ("plan", "discount", "p", -30),
        ("contract", "discount", "k", -3),
    ]
    assert found.lines.select("gross", "discount", "amount").row(0) == (100, -73, 27)


def test_a_discount_takes_at_most_what_is_left() -> None:
    """120 off 100 is 100 off."""
    found = chained(["100"], [term(discounts=[discount(amount=120)])])
    assert found.lines["discount"].to_list() == [-100]


def test_a_percentage_of_an_exact_amount_is_rounded_to_21_decimals() -> None:
    """Half of the smallest amount is rounded away from zero: all of it is off."""
    found = chained(["0.000000000000000000001"], [term(discounts=[discount(percent=50)])])
    assert found.lines["amount"].to_list() == [0]


def test_a_discount_of_some_charges_leaves_the_others() -> None:
    """A plan's discounts, a percentage and an amount, on one charge of two."""
    only = (discount(percent=10, charges=["a"]), discount(id="e", amount=5, charges=["a"]))
    found = chained(["100", {"term": 1, "gross": "100"}], [term("a"), term("b")], {"plan": 0}, levels=[Level(only)])
    assert found.lines["net_minor"].to_list() == [8500, 10000]


def test_a_maximum_is_a_discount_and_a_minimum_a_row() -> None:
    """What is above 80 comes off; what is missing to 50 is added after its charge."""
    found = chained(["100", "20"], [term(maximum_spend=80, minimum_spend=50)])
    assert owed(found) == [("charge", "charge", 8000), ("charge", "charge", 2000), ("charge", "minimum_spend", 3000)]
    assert found.applied.rows() == [(0, "charge", "maximum_spend", "maximum_spend", -20)]


def test_a_minimum_is_prorated() -> None:
    """10.00 for 25 of 28 days, 8.00 used: 0.93 is missing (Lago)."""
    found = chained([{"gross": "8", "numerator": 25, "denominator": 28}], [term(minimum_spend=10)])
    assert [net for *_, net in owed(found)] == [800, 93]


@pytest.mark.parametrize(("policy", "net"), [("none", 80), ("prorated", 40)])
def test_a_maximum_is_prorated_by_policy(policy: str, net: int) -> None:
    """Half of a period: all of the maximum holds, or half of it."""
    policies = [Policies.model_validate({"maximum_proration": policy})]
    rows = [{"gross": "1", "numerator": 1, "denominator": 2}]
    assert owed(chained(rows, [term(maximum_spend="0.8")], policies=policies)) == [("charge", "charge", net)]


def test_use_above_a_commitment_costs_the_overage_factor() -> None:
    """1,500 of 1,000 agreed at 1.2: 100 more. Below it, what is missing, if it is to be trued up."""
    terms = [term(commitment=commitment(1000, overage_factor="1.2"))]
    terms.append(term(commitment=commitment(1000, true_up=False)))
    found = chained([{"gross": "1500"}, {"gross": "400"}, {"gross": "400", "term": 1}], terms)
    assert [(kind, net) for _, kind, net in owed(found)] == [
        ("charge", 150000), ("overage", 10000), ("charge", 40000), ("commitment", 60000), ("charge", 40000),
    ]  # fmt: skip


def test_a_commitment_per_bucket() -> None:
    """Windows of 5, 15 and 10 at 10 agreed and 1.5: total = utilised + overage + true-up (flexprice)."""
    #   window      0     1     2
    #   cost        5    15    10
    #   owed       10    10 + 5 * 1.5    10
    terms = [term(commitment=commitment(10, overage_factor="1.5", per="bucket"))]
    buckets = [(0, 0, "5"), (0, 1, "9"), (0, 1, "6"), (0, 2, "10")]
    assert [net for *_, net in owed(chained(["30"], terms, buckets=buckets))] == [3000, 250, 500]


def test_a_minimum_counts_towards_a_commitment() -> None:
    """20 used, 50 at least, 60 agreed: 30 and then 10."""
    found = chained(["20"], [term(minimum_spend=50, commitment=commitment(60))])
    assert [net for *_, net in owed(found)] == [2000, 3000, 1000]


def test_a_plans_discount_is_shared_out_by_largest_remainder() -> None:
    """1.00 off three lines of the same amount: 34, 33 and 33 cents."""
    found = chained(["10", "10", "10"], None, {"plan": 0}, levels=[Level((discount(amount=1),))])
    assert found.lines["shared_minor"].to_list() == [-34, -33, -33]
    assert found.applied["amount"].to_list() == [D("-0.34"), D("-0.33"), D("-0.33")]


def test_plan_then_contract_in_their_order() -> None:
    """Fixed discount, maximum, minimum and commitment of the plan; the contract takes what the plan gives."""
    plan = Level((discount(amount=10),), maximum_spend=D(100), commitment=commitment(150))
    contract = Level(minimum_spend=D(180), commitment=commitment(160, overage_factor=2))
    found = chained(["80", "80"], None, {"plan": 0, "contract": 1}, levels=[plan, contract])
    assert owed(found) == [
        ("charge", "charge", 5000), ("charge", "charge", 5000), ("plan", "commitment", 5000),
        ("contract", "minimum_spend", 3000), ("contract", "overage", 2000),
    ]  # fmt: skip
    assert found.applied["step"].to_list() == ["discount", "maximum_spend"] * 2


def test_a_plans_commitment_is_prorated() -> None:
    """10,000 for 2 of 29 days less 36.90 used: 652.76 (Lago)."""
    bill = {"plan": 0, "numerator": 2, "denominator": 29}
    assert owed(chained(["36.90"], None, bill, levels=[Level(commitment=commitment(10000))]))[1][2] == 65276


def test_a_bill_without_charges_owes_its_minimum() -> None:
    """Bills stand in their order, also those that have nothing else."""
    found = chained([{"bill": 1, "gross": "1"}], None, {"plan": 0}, {}, levels=[Level(minimum_spend=D(5))])
    assert found.lines.select("bill", "kind", "net_minor").rows() == [(0, "minimum_spend", 500), (1, "charge", 100)]


@pytest.mark.parametrize(("policy", "bases"), [("at_use", [600, 300]), ("at_top_up", [400, 200])])
def test_credits_pay_what_is_left(policy: str, bases: list[int]) -> None:
    """3.00 of credits over lines of 6.00 and 3.00; they lower the tax base if they were taxed at top-up."""
    policies = [Policies.model_validate({"prepaid_tax": policy})]
    found = chained(["6", "3"], None, {"prepaid_minor": 300}, policies=policies)
    assert found.lines.select("credit_minor", "net_minor").rows() == [(-200, 400), (-100, 200)]
    assert found.lines["tax_base_minor"].to_list() == bases


def test_credits_pay_no_more_than_is_owed() -> None:
    """Two bills: one takes what it owes, the other has no credits."""
    bills = [{"prepaid_minor": 1000}, {}]
    found = chained(["6", {"bill": 1, "gross": "6"}], None, *bills)
    assert found.lines["net_minor"].to_list() == [0, 600]


def test_what_does_not_fit_is_an_error() -> None:
    """Amounts beyond the minor units of 64 bits, and an overage beyond an amount."""
    with pytest.raises(pl.exceptions.PolarsError):
        chained(["99999999999999999"])
    with pytest.raises(pl.exceptions.PolarsError):
        chained(["99999999999999999"], [term(commitment=commitment(0, overage_factor=10**9))])
    with pytest.raises(pl.exceptions.PolarsError):
        chained(["90000000000000000"] * 2, None, {"plan": 0}, levels=[Level(minimum_spend=D(1))])


def test_no_rows_and_no_bills() -> None:
    """Empty frames, with all columns."""
    found = chain(pl.DataFrame(schema=CHARGED), pl.DataFrame(schema=BILLS), [], [], [])
    assert found.lines.schema == LINES


CENTS = st.decimals(min_value=0, max_value=1000, places=4)


@settings(max_examples=40)
@given(st.lists(CENTS, min_size=1, max_size=6), CENTS, CENTS, CENTS, st.integers(0, 10**5))
def test_a_bill_adds_up(gross: list[D], off: D, most: D, least: D, prepaid: int) -> None:
    """Lines are never below zero, and their sum is what plan and credits leave of it."""
    level = Level((discount(amount=off),), least, most)
    lines = chained(list(map(str, gross)), None, {"plan": 0, "prepaid_minor": prepaid}, levels=[level]).lines
    cents = [
        int(pl.select(pl.lit(each).cast(pl.Decimal(38, 9)).round(2, mode="half_away_from_zero")).item() * 100)
        for each in (*gross, off, most, least)
    ]
    total = max(min(max(sum(cents[:-3]) - cents[-3], 0), cents[-2]), cents[-1])
    assert lines["net_minor"].min() >= 0
    assert lines["net_minor"].sum() == total - min(prepaid, total)
    assert lines["amount_minor"].sum() + lines["shared_minor"].sum() == total


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 10**6), min_size=1, max_size=6), min_size=1, max_size=4),
    st.integers(-(10**9), 10**9),
)
def test_shares_add_up_and_are_near_their_proportion(groups: list[list[int]], amount: int) -> None:
    """Exactly the amount, each within one unit of its exact share, and none without weight."""
    rows = [(number, weight) for number, weights in enumerate(groups) for weight in weights]
    frame = pl.DataFrame(rows, schema={"group": pl.Int64, "weight": pl.Int64}, orient="row")
    shares = frame.with_columns(share=allocated(pl.lit(amount), pl.col("weight"), "group"))
    for number, weights in enumerate(groups):
        own, whole = shares.filter(group=number)["share"].to_list(), sum(weights)
        assert sum(own) == (amount if whole else 0)
        assert all(
            abs(share * whole - amount * weight) < max(whole, 1) for share, weight in zip(own, weights, strict=True)
        )


def test_a_tie_of_remainders_goes_to_the_row_that_stands_first() -> None:
    """3 of 4 yen are taken off two lines of 2: what a charge's minimum adds stands before the next charge."""
    rows = [{"gross": "0"}, {"gross": "2", "term": 1}]
    terms, level = [term(minimum_spend=2), term("e")], Level(maximum_spend=D(1))
    found = chained(rows, terms, {"currency": "JPY", "plan": 0}, levels=[level])
    assert found.lines.select("kind", "shared_minor").rows() == [("charge", 0), ("minimum_spend", -2), ("charge", -1)]
    assert found.applied.select("line", "amount").rows() == [(1, -2), (2, -1)]
