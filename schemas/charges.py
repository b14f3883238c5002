"""The charges of a plan: each charge model with its keys. What they mean is in docs/pricing.md.

Names of prices end in price, amount or spend. In a book of several currencies a price may be a mapping by currency;
`PriceBook.in_currency` makes each of them a Decimal, and rating only sees such a book.
"""

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from schemas.exact import Dimension, Factor, Frozen, Name, Percent, Prices, Quantity, Size, Words, some
from schemas.meter import Slug

Values = tuple[str, ...]


def _values(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


_OneOrMore = Annotated[Values, BeforeValidator(some), BeforeValidator(_values, json_schema_input_type=str | Values)]
Allowed = dict[Dimension, _OneOrMore]
"""Dimensions with the values that pass; one value may stand without a list."""


class Tier(Frozen):
    """A range of quantities `(up_to of the tier before, up_to]`, its unit price, and the flat amount of entering it."""

    up_to: Size | None
    unit_price: Prices
    flat: Prices = Decimal(0)
    cap: Prices | None = None


class PercentageTier(Frozen):
    """A range of amounts `(up_to of the tier before, up_to]` with its percentage."""

    up_to: Size | None
    rate_percent: Percent
    flat: Prices = Decimal(0)
    cap: Prices | None = None


class Discount(Frozen):
    """Exactly one of percent, amount and units. Of a plan or a contract: on these charges, or on all."""

    id: Name
    description: Words = ""
    percent: Percent | None = None
    amount: Prices | None = None
    units: Quantity | None = None
    charges: tuple[Name, ...] = ()


class Commitment(Frozen):
    """An amount that is owed whatever is used (with `true_up`); use above it costs `overage_factor` as much."""

    amount: Prices
    overage_factor: Factor = Decimal(1)
    true_up: bool = True
    per: Literal["period", "bucket"] = "period"


class Buckets(Frozen):
    """How a period's quantity is made of windows."""

    window: Literal["minute", "hour", "day"]
    take: Literal["sum", "max", "average", "percentile", "time_weighted", "each"]
    percent: Percent | None = None


class Conversion(Frozen):
    """From the meter's unit to the price's: exactly one of divide_by and multiply_by, then rounding."""

    divide_by: Size | None = None
    multiply_by: Size | None = None
    round: Literal["half_up", "up", "down"] = "half_up"
    decimals: int = Field(default=9, ge=0, le=9, strict=True)


class Display(Frozen):
    """How an invoice shows the quantity. Rating takes no notice."""

    unit: Words
    decimals: int = Field(default=9, ge=0, le=9, strict=True)


class _Charge(Frozen):
    id: Name
    description: Words = ""
    features: tuple[Name, ...] = ()
    tax_code: Name | None = None
    priced_in: Name | None = None
    discounts: tuple[Discount, ...] = ()
    minimum_spend: Prices | None = None
    maximum_spend: Prices | None = None
    commitment: Commitment | None = None
    display: Display | None = None

    @property
    def title(self) -> str:
        """What stands on an invoice: the description, or the id where there is none."""
        return self.description or self.id


class FlatCharge(_Charge):
    """The same amount every period, prorated."""

    model: Literal["flat"]
    amount: Prices
    pay: Literal["arrears", "advance"] = "arrears"


class MeteredCharge(_Charge):
    """What every metered charge may say."""

    meter: Slug
    filters: Allowed = Field(default_factory=dict)
    group_by: tuple[Dimension, ...] = ()
    buckets: Buckets | None = None
    recurring: bool = False
    unit: Conversion | None = None
    included: Quantity = Decimal(0)


class StandardCharge(MeteredCharge):
    """Every unit at the same price."""

    model: Literal["standard"]
    unit_price: Prices


class GraduatedCharge(MeteredCharge):
    """Each part of the quantity is sold at the price of the tier that it falls in."""

    model: Literal["graduated"]
    tiers: Annotated[tuple[Tier, ...], BeforeValidator(some)]


class VolumeCharge(MeteredCharge):
    """The whole quantity is sold at the price of the tier that it falls in."""

    model: Literal["volume"]
    tiers: Annotated[tuple[Tier, ...], BeforeValidator(some)]


class PackageCharge(MeteredCharge):
    """Packages of `size` units, begun ones whole (`round: up`) or full ones only, after the free units came off."""

    model: Literal["package"]
    size: Size
    price: Prices
    free_units: Quantity = Decimal(0)
    round: Literal["up", "down"] = "up"


class PercentageCharge(MeteredCharge):
    """A percentage of the amounts that events carry, and a fixed fee for each event that is not free."""

    model: Literal["percentage"]
    rate_percent: Percent
    fixed: Prices = Decimal(0)
    free_events: int | None = Field(default=None, ge=0, strict=True)
    free_amount: Quantity | None = None
    event_minimum: Prices | None = None
    event_maximum: Prices | None = None


class GraduatedPercentageCharge(MeteredCharge):
    """Each part of an amount at the percentage of the tier that it falls in."""

    model: Literal["graduated_percentage"]
    tiers: Annotated[tuple[PercentageTier, ...], BeforeValidator(some)]


class DynamicCharge(MeteredCharge):
    """The amounts that events carry, times a multiplier."""

    model: Literal["dynamic"]
    multiplier: Factor = Decimal(1)


class CapacityCharge(MeteredCharge):
    """A capacity for a fixed amount, and a price for each unit above it."""

    model: Literal["capacity"]
    capacity: Quantity
    amount: Prices
    overage_price: Prices


class Cell(Frozen):
    """A price for the usage whose dimensions have these values."""

    when: Allowed
    unit_price: Prices


class MatrixCharge(MeteredCharge):
    """Each unit at the price of the first cell that it meets, else at the default price."""

    model: Literal["matrix"]
    dimensions: Annotated[tuple[Dimension, ...], BeforeValidator(some)]
    cells: Annotated[tuple[Cell, ...], BeforeValidator(some)]
    default_price: Prices | None = None


MODELS: dict[str, type[_Charge]] = {
    "flat": FlatCharge,
    "standard": StandardCharge,
    "graduated": GraduatedCharge,
    "volume": VolumeCharge,
    "package": PackageCharge,
    "percentage": PercentageCharge,
    "graduated_percentage": GraduatedPercentageCharge,
    "dynamic": DynamicCharge,
    "capacity": CapacityCharge,
    "matrix": MatrixCharge,
}


def _model_of(charge: Any) -> str | None:
    model = charge.get("model") if isinstance(charge, dict) else getattr(charge, "model", None)
    return f"<{model}>" if isinstance(model, str) else None


Charge = Annotated[
    Annotated[FlatCharge, Tag("<flat>")]
    | Annotated[StandardCharge, Tag("<standard>")]
    | Annotated[GraduatedCharge, Tag("<graduated>")]
    | Annotated[VolumeCharge, Tag("<volume>")]
    | Annotated[PackageCharge, Tag("<package>")]
    | Annotated[PercentageCharge, Tag("<percentage>")]
    | Annotated[GraduatedPercentageCharge, Tag("<graduated_percentage>")]
    | Annotated[DynamicCharge, Tag("<dynamic>")]
    | Annotated[CapacityCharge, Tag("<capacity>")]
    | Annotated[MatrixCharge, Tag("<matrix>")],
    Discriminator(
        _model_of,
        custom_error_type="charge_model",
        custom_error_message=f"allowed: a charge whose model is one of {', '.join(MODELS)}",
    ),
]
"""A charge of a plan, of one of the charge models."""
