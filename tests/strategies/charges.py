"""Random charges: legal ones, of every model and option, with nasty numbers.

What a charge is (model, meter, groups, buckets) is drawn once for an id, and its prices anew for each version, plan and
override. Small whole numbers come first, so that quantities often meet the end of a tier or fill a package. `contested`
adds what docs/pricing.md leaves open, or where it contradicts itself.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

REGIONS, SIZES = ["eu", "us", "", "asia"], ["s", "l"]
small = st.integers(1, 8).map(Decimal)
quantities = st.one_of(
    small,
    small,
    st.integers(-3, 40).map(Decimal),
    st.decimals(-5, 1000, places=9),
    st.decimals(10**9, 10**9 + 1, places=9),
)
amounts = st.one_of(st.integers(0, 9).map(Decimal), st.decimals(0, 100, places=12), st.decimals(0, 100, places=2))
credits_ = st.one_of(st.integers(0, 9).map(Decimal), st.decimals(0, 100, places=6))
percents = st.one_of(st.sampled_from(["0", "10", "50", "100", "33.3"]).map(Decimal), st.decimals(0, 100, places=10))
sizes = st.one_of(small, small, st.decimals("0.01", 99, places=9))
maybe = st.sampled_from([False, False, True])


def price(draw: st.DrawFn, currencies: Sequence[str] | None, unit: str | None = None) -> Any:
    """A price: in a pricing unit, for each of several currencies, or one number."""
    if unit:
        return draw(credits_)
    if not currencies or len(currencies) == 1:
        return draw(amounts)
    return {currency: draw(amounts) for currency in currencies}


@st.composite
def shapes(draw: st.DrawFn, name: str, contested: bool) -> dict[str, Any]:
    """What a charge is in all versions and plans: everything but its numbers."""
    models = ["standard", "graduated", "volume", "package", "percentage", "graduated_percentage", "dynamic",
              "capacity", "matrix", "flat"]  # fmt: skip
    shape: dict[str, Any] = {"id": name, "model": draw(st.sampled_from(models))}
    if draw(maybe):
        shape["tax_code"] = "reduced"
    if draw(maybe):
        shape["priced_in"] = "credits"
    if shape["model"] == "flat":
        return {**shape, "pay": draw(st.sampled_from(["arrears", "arrears", "advance"]))}
    meters = ["total", "total", "calls", "least", "peak", "mean", "latest", "users"]
    money = shape["model"] in {"percentage", "graduated_percentage", "dynamic"}
    shape["meter"] = "total" if money else draw(st.sampled_from(meters))
    if draw(maybe):
        shape["filters"] = {"region": draw(st.lists(st.sampled_from(REGIONS), min_size=1, max_size=3, unique=True))}
    if draw(maybe):
        shape["group_by"] = draw(st.sampled_from([["region"], ["size"], ["size", "region"]]))
    if shape["model"] == "percentage":
        return shape
    if draw(maybe):
        adds_up = shape["meter"] in {"total", "calls"}
        takes = [
            "sum",
            "max",
            "average",
            "percentile",
            "each",
            *(["time_weighted"] if adds_up and shape["model"] != "matrix" else []),
        ]
        shape["buckets"] = {
            "window": draw(st.sampled_from(["hour", "day", "day"])),
            "take": draw(st.sampled_from(takes)),
        }
        if shape["buckets"]["take"] == "percentile":
            shape["buckets"]["percent"] = draw(st.sampled_from(["50", "95", "99.9", "100", "0.1"]))
    if shape["meter"] == "total" and shape.get("buckets", {}).get("take") in {None, "time_weighted"}:
        shape["recurring"] = draw(maybe) and shape["model"] != "matrix"
    return shape


@st.composite
def filled(
    draw: st.DrawFn, shape: Mapping[str, Any], currencies: Sequence[str] | None, contested: bool
) -> dict[str, Any]:
    """A charge of a shape, with numbers. Prices are single numbers without `currencies`, as contracts have them."""
    unit = shape.get("priced_in") if currencies else None
    charge = {**shape, **_model_keys(draw, shape["model"], currencies, unit)}
    take, grouped = shape.get("buckets", {}).get("take"), bool(shape.get("group_by"))
    metered = shape["model"] not in {"flat", "percentage"}
    if metered and draw(maybe):
        key = draw(st.sampled_from(["divide_by", "multiply_by"]))
        charge["unit"] = {key: draw(sizes), "round": draw(st.sampled_from(["half_up", "up", "down"])),
                          "decimals": draw(st.sampled_from([0, 2, 9]))}  # fmt: skip
    free = metered and (contested or (take != "each" and shape["model"] != "matrix"))
    if free and draw(maybe):
        charge["included"] = draw(sizes)
    by_bucket = take == "each" and draw(maybe)
    if not by_bucket or contested:
        charge["discounts"] = draw(discounts(currencies, unit, units=free, amounts_too=contested or not grouped))
        if contested or not grouped:
            charge |= spend(draw, currencies, unit)
    if by_bucket and draw(maybe):
        charge["commitment"] = {**_commitment(draw, currencies, unit), "per": "bucket"}
    return charge


def _model_keys(  # noqa: C901, PLR0911  one way out a model
    draw: st.DrawFn, model: str, currencies: Sequence[str] | None, unit: str | None
) -> dict[str, Any]:
    def cost() -> Any:
        return price(draw, currencies, unit)

    match model:
        case "flat":
            return {"amount": cost()}
        case "standard":
            return {"unit_price": cost()}
        case "graduated" | "volume" | "graduated_percentage":
            ends = sorted(draw(st.sets(st.one_of(small, small, st.decimals("0.000000001", 99, places=9)), max_size=3)))
            tiers = [{"up_to": end, "flat": cost()} for end in [*ends, None]]
            for tier in tiers:
                by_percent = model == "graduated_percentage"
                tier |= {"rate_percent": draw(percents)} if by_percent else {"unit_price": cost()}
                if draw(maybe):
                    tier["cap"] = cost()
            return {"tiers": tiers}
        case "package":
            return {"size": draw(sizes), "price": cost(), "round": draw(st.sampled_from(["up", "down"])),
                    "free_units": draw(st.one_of(st.just(Decimal(0)), small))}  # fmt: skip
        case "percentage":
            return _percentage_keys(draw, cost, currencies if not unit else None)
        case "dynamic":
            return {"multiplier": draw(st.one_of(small, st.decimals(0, 3, places=9)))}
        case "capacity":
            return {"capacity": draw(st.one_of(small, sizes)), "amount": cost(), "overage_price": cost()}
        case _:
            cells = [
                {"when": {key: draw(st.sampled_from(values)) for key, values in (("region", REGIONS), ("size", SIZES))
                          if key == "region" or draw(maybe)}, "unit_price": cost()}
                for _ in range(draw(st.integers(1, 3)))
            ]  # fmt: skip
            return {
                "dimensions": ["region", "size"],
                "cells": cells,
                **({"default_price": cost()} if draw(maybe) else {}),
            }


def _percentage_keys(draw: st.DrawFn, cost: Callable[[], Any], currencies: Sequence[str] | None) -> dict[str, Any]:
    """All keys, so that an override never brings a minimum above the maximum."""
    low, more = draw(st.decimals(0, 3, places=2)), draw(st.decimals(0, 9, places=2))

    def bound(value: Decimal) -> Any:
        written = dict.fromkeys(currencies, value) if currencies and len(currencies) > 1 else value
        return draw(st.sampled_from([None, written]))

    return {
        "rate_percent": draw(percents), "fixed": cost(), "free_events": draw(st.sampled_from([None, 0, 1, 3])),
        "free_amount": draw(st.one_of(st.none(), small, sizes)), "event_minimum": bound(low), "event_maximum": bound(low + more),
    }  # fmt: skip


def _commitment(draw: st.DrawFn, currencies: Sequence[str] | None, unit: str | None = None) -> dict[str, Any]:
    factor = draw(st.sampled_from(["1", "1.2", "2", "1.000000001"]))
    return {"amount": price(draw, currencies, unit), "overage_factor": factor, "true_up": draw(st.booleans())}


def spend(draw: st.DrawFn, currencies: Sequence[str] | None, unit: str | None = None) -> dict[str, Any]:
    """Minimum, maximum and commitment, each or not."""
    found: dict[str, Any] = {}
    if draw(maybe):
        found["minimum_spend"] = price(draw, currencies, unit)
    elif draw(maybe):  # a maximum is at least the minimum
        found["maximum_spend"] = price(draw, currencies, unit)
    if draw(maybe):
        found["commitment"] = _commitment(draw, currencies, unit)
    return found


@st.composite
def discounts(
    draw: st.DrawFn,
    currencies: Sequence[str] | None,
    unit: str | None = None,
    *,
    units: bool = False,
    amounts_too: bool = True,
) -> list[dict[str, Any]]:
    """Up to two discounts."""
    kinds = ["percent", *(["amount"] if amounts_too else []), *(["units"] if units else [])]
    found = []
    for number in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        kind = draw(st.sampled_from(kinds))
        value = (
            draw(percents) if kind == "percent" else draw(small) if kind == "units" else price(draw, currencies, unit)
        )
        found.append({"id": f"d{number}", kind: value})
    return found


@st.composite
def tax_rules(draw: st.DrawFn) -> dict[str, Any]:
    """A tax of one rate or of several, the last of which may be compound."""
    mode = draw(st.sampled_from(["exclusive", "inclusive"]))
    rates = [{"name": f"t{number}", "rate_percent": draw(st.sampled_from(["20", "7", "8.875", "0.5", "0"]))}
             for number in range(draw(st.integers(1, 3)))]  # fmt: skip
    if len(rates) == 1:
        return {"mode": mode, **rates[0]}
    rates[-1]["compound"] = draw(st.booleans())
    return {"mode": mode, "rates": rates}


@st.composite
def policies(draw: st.DrawFn) -> dict[str, str]:
    """A value of each policy."""
    return {
        "zero_usage_flat": draw(st.sampled_from(["first_tier", "none"])),
        "tier_scope": draw(st.sampled_from(["period", "period", "version"])),
        "proration": draw(st.sampled_from(["seconds", "days_half_open", "days_inclusive", "fixed_30", "none"])),
        "rounding": draw(st.sampled_from(["half_up", "half_even"])),
        "tax_position": draw(st.sampled_from(["rate_group", "line", "invoice"])),
        "prepaid_tax": draw(st.sampled_from(["at_use", "at_top_up"])),
        "maximum_proration": draw(st.sampled_from(["none", "prorated"])),
    }
