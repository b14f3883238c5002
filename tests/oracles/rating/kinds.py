"""What the oracle of rating takes and gives, and its three ways to round. Plain values, all exact."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from math import ceil, floor
from typing import NamedTuple

ZERO, ONE = Fraction(0), Fraction(1)


class Event(NamedTuple):
    """One usage event: `value` is a text for UNIQUE_COUNT, and 1 or anything for COUNT; `position` orders ties."""

    subject: str
    meter: str
    at: datetime
    value: Fraction | str
    dimensions: Mapping[str, str] = {}
    position: int = 0

    @property
    def number(self) -> Fraction:
        """The value of a meter that has numbers."""
        assert not isinstance(self.value, str), self
        return self.value


@dataclass(frozen=True)
class Slice:
    """A quantity of a segment sold at one price."""

    from_at: datetime
    label: str
    up_to: Fraction | None
    quantity: Fraction
    unit_price: Fraction
    flat: Fraction
    amount: Fraction
    bucket_at: datetime | None = None


@dataclass
class Row:
    """A charge row. `amount` is exact to 21 decimals; what ends in minor is whole minor units of the currency."""

    customer: str
    start: datetime
    end: datetime
    billed_at: datetime
    charge: str
    kind: str
    level: str
    currency: str
    group: dict[str, str] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)
    quantity: Fraction = ZERO
    gross: Fraction = ZERO
    discounts: list[tuple[str, Fraction]] = field(default_factory=list)
    amount: Fraction = ZERO
    amount_minor: int = 0
    shared_minor: int = 0
    credit_minor: int = 0
    tax_minor: int = 0
    tax_base_minor: int = 0
    tax_code: str | None = None

    @property
    def left_minor(self) -> int:
        """What is left of it before prepaid credits."""
        return self.amount_minor - self.shared_minor

    @property
    def net_minor(self) -> int:
        """What is left of it after all that was taken off."""
        return self.amount_minor - self.shared_minor - self.credit_minor

    @property
    def says_something(self) -> bool:
        """Whether the row stands in the answer: of a metered charge without use and without amount there is none."""
        return bool(self.quantity or self.gross or self.amount)


@dataclass(frozen=True)
class Tax:
    """The tax of one rate on one invoice. Its base is without tax in both modes."""

    customer: str
    billed_at: datetime
    mode: str
    name: str
    rate_percent: Fraction
    base_minor: int
    tax_minor: int


class Unassigned(NamedTuple):
    """An event that nobody pays for: its place in the log, and the matrix charge that has no cell for it, if any."""

    subject: str
    meter: str
    position: int
    charge: str | None


@dataclass
class Answer:
    """All rows, by customer and bill, in the order of the invoice; taxes; usage that nobody pays for."""

    rows: list[Row] = field(default_factory=list)
    taxes: list[Tax] = field(default_factory=list)
    unassigned: list[Unassigned] = field(default_factory=list)


def half_away(number: Fraction, decimals: int) -> Fraction:
    """Rounded to so many decimals, a half away from zero.

    >>> half_away(Fraction(-5, 1000), 2)
    Fraction(-1, 100)
    """
    scale = 10**decimals
    whole = floor(abs(number) * scale + Fraction(1, 2))
    return Fraction(whole if number >= 0 else -whole, scale)


def exact(amount: Fraction) -> Fraction:
    """An amount to its 21 decimals."""
    return half_away(amount, 21)


def to_minor(amount: Fraction, minor_units: int, rounding: str) -> int:
    """An amount as whole minor units, by the policy `half_up` (away from zero) or `half_even`.

    >>> [to_minor(Fraction(125, 1000), 2, way) for way in ("half_up", "half_even")]
    [13, 12]
    """
    scaled = amount * 10**minor_units
    if rounding == "half_even":
        return round(scaled)  # Python's own rounding of a fraction
    return int(half_away(scaled, 0))


def shared_out(total: int, exactly: Sequence[Fraction]) -> list[int]:
    """Whole numbers near the exact ones that add up to `total`: largest remainder, ties by order.

    >>> shared_out(100, [Fraction(100, 3)] * 3)
    [34, 33, 33]
    """
    shares = [floor(number) for number in exactly]
    missing = total - sum(shares)
    assert 0 <= missing <= len(shares), (total, exactly)
    by_remainder = sorted(range(len(shares)), key=lambda at: (-(exactly[at] - shares[at]), at))
    for at in by_remainder[:missing]:
        shares[at] += 1
    return shares


def in_proportion(total: int, weights: Sequence[int]) -> list[int]:
    """`total` shared out in proportion to weights that are not below 0."""
    whole = sum(weights)
    return shared_out(total, [Fraction(total * weight, whole) if whole else ZERO for weight in weights])


def ceiling(number: Fraction, decimals: int) -> Fraction:
    """Rounded up to so many decimals."""
    return Fraction(ceil(number * 10**decimals), 10**decimals)


def flooring(number: Fraction, decimals: int) -> Fraction:
    """Rounded down to so many decimals."""
    return Fraction(floor(number * 10**decimals), 10**decimals)
