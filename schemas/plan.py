"""Plans, tax rules and policies: what a price book has beside its charges. docs/pricing.md says what they mean."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from schemas.charges import Charge, Commitment, Discount
from schemas.exact import Currency, Frozen, Name, Percent, Price, Prices, Quantity, Words, some


class Every(StrEnum):
    """How long a billing period is."""

    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


class Anchor(StrEnum):
    """Where a billing period begins: with the calendar's, or at the day that the contract began on."""

    CALENDAR = "calendar"
    ANNIVERSARY = "anniversary"


class Cycle(Frozen):
    """How billing periods follow each other."""

    every: Every = Every.MONTH
    anchor: Anchor = Anchor.CALENDAR


class Feature(Frozen):
    """Something that a plan entitles to."""

    id: Name
    name: Words = ""


class Entitlement(Frozen):
    """A feature of a plan, up to a limit if there is one."""

    id: Name
    limit: Quantity | None = None


def _entitlement(value: object) -> object:
    return {"id": value} if isinstance(value, str) else value


Entitled = Annotated[Entitlement, BeforeValidator(_entitlement, json_schema_input_type=Name | Entitlement)]


class ProgressiveBilling(Frozen):
    """Amounts of usage at which an invoice is issued while the period runs: each threshold once, then every so much."""

    thresholds: tuple[Prices, ...] = ()
    then_every: Prices | None = None


class Plan(Frozen):
    """What a customer on this plan pays for, in the order of the invoice."""

    id: Name
    name: Words = ""
    cycle: Cycle = Cycle()
    trial_days: int = Field(default=0, ge=0, le=3660, strict=True)
    features: tuple[Entitled, ...] = ()
    charges: Annotated[tuple[Charge, ...], BeforeValidator(some)]
    discounts: tuple[Discount, ...] = ()
    minimum_spend: Prices | None = None
    maximum_spend: Prices | None = None
    commitment: Commitment | None = None
    progressive_billing: ProgressiveBilling | None = None


class PricingUnit(Frozen):
    """A unit that prices may be in (credits), and what one is worth in each currency."""

    id: Name
    name: Words = ""
    rate: dict[Currency, Price]


class TaxRate(Frozen):
    """One of several rates of a tax rule. A compound rate is on the base and the taxes before it."""

    name: Annotated[Words, Field(min_length=1)]
    rate_percent: Percent
    compound: bool = False


class TaxMode(StrEnum):
    """Whether tax comes on top of the prices, or is in them."""

    EXCLUSIVE = "exclusive"
    INCLUSIVE = "inclusive"


class TaxRule(Frozen):
    """A tax: one rate with its name, or several rates."""

    mode: TaxMode
    name: Annotated[Words, Field(min_length=1)] | None = None
    rate_percent: Percent | None = None
    rates: tuple[TaxRate, ...] = ()

    @property
    def all_rates(self) -> tuple[TaxRate, ...]:
        """The rates, also where there is only one."""
        if self.rates or self.name is None or self.rate_percent is None:
            return self.rates
        return (TaxRate(name=self.name, rate_percent=self.rate_percent),)


class ZeroUsageFlat(StrEnum):
    """Whether the flat amount of the first tier is owed when nothing was used."""

    FIRST_TIER = "first_tier"
    NONE = "none"


class TierScope(StrEnum):
    """Whether tiers run on through the segments of a period, or start anew in each."""

    PERIOD = "period"
    VERSION = "version"


class Proration(StrEnum):
    """What fraction of a period a segment is."""

    SECONDS = "seconds"
    DAYS_HALF_OPEN = "days_half_open"
    DAYS_INCLUSIVE = "days_inclusive"
    FIXED_30 = "fixed_30"
    NONE = "none"


class Rounding(StrEnum):
    """Where a half goes: away from zero, or to the even neighbour."""

    HALF_UP = "half_up"
    HALF_EVEN = "half_even"


class TaxPosition(StrEnum):
    """What tax is rounded on."""

    RATE_GROUP = "rate_group"
    LINE = "line"
    INVOICE = "invoice"


class PrepaidTax(StrEnum):
    """When prepaid credits are taxed: credits taxed at top-up lower the tax base when they are used."""

    AT_USE = "at_use"
    AT_TOP_UP = "at_top_up"


class LateUsage(StrEnum):
    """What becomes of usage that arrived after its period was billed."""

    ADJUST_NEXT = "adjust_next"
    """The difference is on the next invoice."""
    REBILL = "rebill"
    """The period's invoice is credited, and a new one takes its place."""
    WRITE_OFF = "write_off"
    """What there would be to pay is not billed; what was billed too much is still credited."""


class Policies(Frozen):
    """Answers to what billing engines disagree on."""

    zero_usage_flat: ZeroUsageFlat = ZeroUsageFlat.FIRST_TIER
    tier_scope: TierScope = TierScope.PERIOD
    proration: Proration = Proration.SECONDS
    rounding: Rounding = Rounding.HALF_UP
    tax_position: TaxPosition = TaxPosition.RATE_GROUP
    prepaid_tax: PrepaidTax = PrepaidTax.AT_USE
    maximum_proration: Literal["none", "prorated"] = "none"
    late_usage: LateUsage = LateUsage.ADJUST_NEXT
