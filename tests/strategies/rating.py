"""Random tenants to rate: several versions of a price book, contracts, and usage at the instants that matter. All legal."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from schemas.contract import Contracts
from schemas.price_book import PriceBook
from tests.oracles.rating.kinds import Event
from tests.strategies.charges import (
    REGIONS,
    SIZES,
    discounts,
    filled,
    maybe,
    policies,
    quantities,
    shapes,
    spend,
    tax_rules,
)

AGGREGATIONS = {
    "total": "SUM", "calls": "COUNT", "least": "MIN", "peak": "MAX", "mean": "AVG", "latest": "LATEST",
    "users": "UNIQUE_COUNT", "availability": "AVG",
}  # fmt: skip
SUBJECTS = ["a", "b", "c", "d", "é"]
ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Havana",
    "Pacific/Chatham", "Asia/Kolkata",
]  # fmt: skip
DAYS = [
    date(2024, month, day)
    for month, day in ((1, 1), (1, 15), (1, 31), (2, 1), (2, 10), (2, 29), (3, 1), (3, 10), (3, 11), (3, 31), (4, 1))
]
STARTS = [*[date(2020, 2, 29), date(2023, 1, 31), date(2023, 8, 30)] * 4, date(2023, 12, 30), *DAYS[:8]]
WINDOWS = [
    (date(2024, 2, 1), date(2024, 3, 1)), (date(2024, 1, 31), date(2024, 2, 29)), (date(2024, 3, 1), date(2024, 4, 2)),
    (date(2023, 12, 31), date(2024, 1, 2)), (date(2024, 2, 28), date(2024, 4, 1)),
]  # fmt: skip
MOVES = [timedelta(0), timedelta(microseconds=-1), timedelta(hours=-1), timedelta(hours=1), timedelta(minutes=45), timedelta(days=3)]  # fmt: skip
instants = st.builds(
    lambda day, zone, move: datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC) + move,
    st.sampled_from(DAYS), st.sampled_from(ZONES), st.sampled_from(MOVES),
)  # fmt: skip


def days_of(after: datetime, through: datetime) -> list[date]:
    """Days for changes of terms: mostly within the periods that end in (after, through]."""
    middle = [after + timedelta(days=9), through - timedelta(days=10), through - timedelta(days=17)]
    return [*[instant.date() for instant in middle] * 6, *DAYS]


@dataclass
class RatingCase:
    """All that `rate_slowly` takes."""

    events: list[Event]
    books: list[PriceBook]
    contracts: Contracts
    after: date
    through: date
    carried: dict[tuple[str, str, tuple[str, ...]], Fraction] = field(default_factory=dict)
    credits: dict[str, int] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that go by name."""
        return {
            "after": self.after, "through": self.through, "aggregations": AGGREGATIONS, "carried": self.carried,
            "credits": self.credits,
        }  # fmt: skip


@st.composite
def cycles(draw: st.DrawFn) -> dict[str, str]:
    """A cycle, a monthly one as often as all others."""
    every = st.sampled_from(["month", "month", "month", "week", "quarter", "year"])
    return {"every": draw(every), "anchor": draw(st.sampled_from(["calendar", "anniversary"]))}


@st.composite
def books(
    draw: st.DrawFn, all_shapes: Sequence[dict[str, Any]], days: Sequence[date], contested: bool
) -> list[PriceBook]:
    """One to three versions of a book with the same plans of other prices, policies and cycle apart."""
    home = draw(st.sampled_from(["USD", "JPY", "KWD", "CLF"]))
    currencies = [home, *draw(st.sampled_from([[], ["EUR"]]))]
    plan_ids = ["p0", "p1"][: draw(st.integers(1, 2))]
    same = {
        "book": "random", "currency": home, "currencies": currencies[1:], "policies": draw(policies()),
        "default_plan": draw(st.sampled_from([None, "p0"])), "taxes": {"reduced": draw(tax_rules())},
        "pricing_units": [{"id": "credits", "rate": {code: draw(st.sampled_from(["1", "0.01", "0.000009"])) for code in currencies}}],
    }  # fmt: skip
    cycle, trial_days = draw(cycles()), draw(st.sampled_from([0, 0, 0, 5, 14, 40]))
    tax = draw(st.one_of(st.none(), tax_rules()))
    charged = {
        plan: draw(st.lists(st.sampled_from(all_shapes), min_size=1, max_size=3, unique_by=lambda shape: shape["id"]))
        for plan in plan_ids
    }
    versions = []
    for version in range(1, draw(st.integers(1, 3)) + 1):
        plans = [
            {
                "id": plan, "cycle": cycle, "trial_days": trial_days, **spend(draw, currencies),
                "charges": [draw(filled(shape, currencies, contested)) for shape in charged[plan]],
                "discounts": draw(discounts(currencies)),
            }
            for plan in plan_ids
        ]  # fmt: skip
        dates = {"effective_at": "2000-01-01"}
        if version > 1:
            dates = {"effective_at": draw(st.sampled_from(days)).isoformat()}
            if draw(st.booleans()):
                dates["existing_customers_at"] = max(draw(st.sampled_from(days)).isoformat(), dates["effective_at"])
        versions.append(PriceBook.model_validate({**same, "version": version, **dates, "tax": tax, "plans": plans}))
    return versions


@st.composite
def changes(
    draw: st.DrawFn, all_shapes: Sequence[dict[str, Any]], versions: Sequence[PriceBook], contested: bool, extra: str
) -> dict[str, Any]:
    """What a contract or an amendment may change: charges, minimum, maximum, commitment, discounts. Numbers alone."""
    found: dict[str, Any] = spend(draw, None)
    if draw(maybe):
        shape = draw(st.sampled_from(all_shapes))
        whole = draw(filled(shape, None, contested))
        keys = {key: value for key, value in whole.items() if key not in shape}
        chosen = draw(st.lists(st.sampled_from(sorted(keys)), unique=True)) if shape["model"] != "percentage" else keys
        found["charges"] = {shape["id"]: {key: keys[key] for key in chosen}}
    if draw(maybe):
        found["remove"] = [draw(st.sampled_from(all_shapes))["id"]]
    if draw(maybe):
        found["add"] = [{"id": extra, "model": "flat", "amount": draw(st.integers(0, 50))}]
    if draw(maybe):
        found["discounts"] = draw(discounts(None))
    if draw(maybe):
        found["price_version"] = draw(st.sampled_from([book.version for book in versions]))
    return found


@st.composite
def contracts(
    draw: st.DrawFn,
    all_shapes: Sequence[dict[str, Any]],
    versions: Sequence[PriceBook],
    days: Sequence[date],
    contested: bool,
) -> Contracts:
    """Contracts that share out some of the subjects: in other currencies and time zones, amended, on trial."""
    book = versions[0]
    payer = {subject: draw(st.sampled_from(["x", "x", "y", None])) for subject in SUBJECTS}
    found = []
    for customer in sorted({name for name in payer.values() if name}):
        starts_on = draw(st.sampled_from(STARTS))
        later = sorted({day for day in draw(st.lists(st.sampled_from(days), max_size=2)) if day > starts_on})
        contract: dict[str, Any] = {
            "customer": customer, "name": customer, "plan": draw(st.sampled_from([plan.id for plan in book.plans])),
            "subjects": [subject for subject in SUBJECTS if payer[subject] == customer], "starts_on": starts_on,
            "currency": draw(st.sampled_from([None, book.currency, *book.currencies])),
            "time_zone": draw(st.sampled_from(ZONES)), "cycle": draw(st.one_of(st.none(), cycles())),
            "anchor_day": draw(st.sampled_from([None, None, 1, 29, 30, 31])),
            "trial_days": draw(st.sampled_from([None, None, 0, 5, 14, 40])),
            **draw(changes(all_shapes, versions, contested, "e0")),
        }  # fmt: skip
        if draw(maybe):
            contract["ends_on"] = draw(st.sampled_from([day for day in days if day > starts_on]))
        contract["amendments"] = [
            {"on": day, **draw(changes(all_shapes, versions, contested, f"e{number}"))}
            for number, day in enumerate(later, start=1)
        ]
        for amendment in contract["amendments"]:
            if draw(maybe):
                amendment["plan"] = draw(st.sampled_from([plan.id for plan in book.plans]))
        if draw(maybe):
            contract["lines"] = [{"id": "line", "description": "A line", "amount": draw(st.integers(-50, 50)),
                                  "on": draw(st.sampled_from(days))}]  # fmt: skip
        if draw(maybe):
            contract["sla"] = [{"id": "uptime", "meter": "availability", "credits": [
                {"below": "99.9", "percent": 10}, {"below": 5, "percent": "33.3"}]}]  # fmt: skip
        found.append(contract)
    return Contracts.model_validate({"contracts": found})


@st.composite
def usage(draw: st.DrawFn, meters: Sequence[str], after: datetime, through: datetime) -> list[Event]:
    """Events, mostly of the meters that are charged for; values below zero, zero, and late instants at bounds."""
    hours = (through - after) // timedelta(hours=1)
    billed = st.integers(-60 * 24, hours).map(lambda hour: after + timedelta(hours=hour))
    near = st.integers(-20 * 24, hours).map(lambda hour: after + timedelta(hours=hour))
    meter = st.sampled_from([*meters * 6, *AGGREGATIONS, *["availability"] * 3])
    fewest = draw(st.sampled_from([8, 4, 0]))
    keys = draw(st.lists(st.tuples(st.sampled_from(SUBJECTS), meter), min_size=fewest, max_size=20))
    words, found = st.sampled_from(["u1", "u2", "u3", "ü"]), []
    for position, (subject, meter) in enumerate(keys):
        value = draw(words) if meter == "users" else Fraction(1) if meter == "calls" else Fraction(draw(quantities))
        dimensions = {"region": draw(st.sampled_from(REGIONS)), "size": draw(st.sampled_from(SIZES))}
        if draw(maybe):
            del dimensions["size"]
        found.append(Event(subject, meter, draw(st.one_of(near, near, billed, instants)), value, dimensions, position))
    return draw(st.permutations(found))


@st.composite
def rating_cases(draw: st.DrawFn, contested: bool = False) -> RatingCase:
    """A book in versions, contracts on it, usage, and the bills that are asked for."""
    all_shapes = [draw(shapes(f"c{number}", contested)) for number in range(draw(st.integers(1, 4)))]
    first, last = draw(st.sampled_from(WINDOWS))
    after, through = (datetime(day.year, day.month, day.day, 12, tzinfo=UTC) for day in (first, last))
    days = days_of(after, through)
    versions = draw(books(all_shapes, days, contested))
    agreed = draw(contracts(all_shapes, versions, days, contested))
    events = draw(usage([shape["meter"] for shape in all_shapes if "meter" in shape], after, through))
    names = [contract.customer for contract in agreed.contracts]
    carried = {
        (name, shape["id"], ()): Fraction(draw(st.integers(0, 9)))
        for name in names
        for shape in all_shapes
        if shape.get("recurring") and not shape.get("group_by")
    }
    credits_ = {name: draw(st.sampled_from([0, 7, 1000, 10**9])) for name in names}
    return RatingCase(events, versions, agreed, first, last, carried, credits_)
