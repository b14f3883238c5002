"""Charges as tables: what a part is priced by, in columns that parts look into. Core.

Decides what of a charge is a tier and what is another number. A term of any model gives one **price row** (a matrix one
a cell), and price rows of the same **shape** (how many tiers, whether with caps) make one table. So ten thousand
contract overrides of a graduated charge are ten thousand rows of one table and cost no more queries than one charge.
"""

from collections.abc import Iterator, Sequence
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Literal, NamedTuple

import polars as pl

from schemas.charges import (
    CapacityCharge,
    Cell,
    Charge,
    DynamicCharge,
    FlatCharge,
    GraduatedCharge,
    GraduatedPercentageCharge,
    MatrixCharge,
    PackageCharge,
    PercentageCharge,
    PercentageTier,
    StandardCharge,
    Tier,
    VolumeCharge,
)
from schemas.plan import Policies, ZeroUsageFlat

EXACT = Context(prec=76, traps=[Inexact, InvalidOperation])
FLAT, UNPRICED = -1, -2
"""Instead of the number of a table: of a flat charge, and of usage that a matrix has no price for."""


class Term(NamedTuple):
    """A charge as it stands in one version of a book for one plan, with overrides; and that version's policies."""

    charge: Charge
    policies: Policies = Policies()


class Shape(NamedTuple):
    """What the price rows of one table have in common."""

    model: Literal["tiers", "volume", "package"]
    tiers: int = 1
    capped: bool = False
    zero_owes: bool = True  # whether the first tier's flat amount is owed at zero usage as well
    events: bool = False  # whether events owe fees and have bounds
    down: bool = False  # whether only full packages count


class Rung(NamedTuple):
    """A tier of any model, its price a plain number."""

    up_to: Decimal | None
    unit_price: Decimal
    flat: Decimal = Decimal(0)
    cap: Decimal | None = None


class PriceRow(NamedTuple):
    """What a part is priced by. What a model does not use stays at its default."""

    shape: Shape
    rungs: tuple[Rung, ...]
    label: str = ""
    size: Decimal = Decimal(1)
    free_units: Decimal = Decimal(0)
    fixed: Decimal = Decimal(0)


class Table(NamedTuple):
    """All price rows of one shape."""

    shape: Shape
    rows: list[PriceRow]


class Places(NamedTuple):
    """Where the price rows of each term are."""

    first: pl.Series  # by term: its first price row; a matrix has those of its cells after it
    table: pl.Series  # by price row: the number of its table, or FLAT, or UNPRICED
    at: pl.Series  # by price row: its place in that table


def tables_of(terms: Sequence[Term]) -> tuple[list[Table], Places]:
    """The tables that the terms make, in the order in which their shapes first appear, and where each term is."""
    tables: dict[Shape, Table] = {}
    numbers: dict[Shape, int] = {}
    first: list[int] = []
    table: list[int] = []
    at: list[int] = []
    for term in terms:
        first.append(len(table))
        for row in price_rows(term):
            if row is None:
                table.append(FLAT if isinstance(term.charge, FlatCharge) else UNPRICED)
                at.append(0)
                continue
            own = tables.setdefault(row.shape, Table(row.shape, []))
            table.append(numbers.setdefault(row.shape, len(numbers)))
            at.append(len(own.rows))
            own.rows.append(row)
    places = Places(pl.Series(first, dtype=pl.UInt32), pl.Series(table, dtype=pl.Int32), pl.Series(at, dtype=pl.UInt32))
    return list(tables.values()), places


def price_rows(term: Term) -> Iterator[PriceRow | None]:
    """The price rows of a term: one, but of a matrix one a cell and then that of the default price.

    None instead of one is for a flat charge, and for a default price that a matrix does not have.
    """
    charge = term.charge
    match charge:
        case FlatCharge():
            yield None
        case StandardCharge():
            yield _tiers(Rung(None, _number(charge.unit_price)))
        case GraduatedCharge() | VolumeCharge() | GraduatedPercentageCharge():
            rungs = tuple(_rung(tier) for tier in charge.tiers)
            shape = Shape(
                "volume" if isinstance(charge, VolumeCharge) else "tiers",
                tiers=len(rungs),
                capped=any(rung.cap is not None for rung in rungs),
                zero_owes=term.policies.zero_usage_flat is ZeroUsageFlat.FIRST_TIER,
            )
            yield PriceRow(shape, rungs)
        case PackageCharge():
            shape = Shape("package", down=charge.round == "down")
            rungs = (Rung(None, _number(charge.price)),)
            yield PriceRow(shape, rungs, size=charge.size, free_units=charge.free_units)
        case PercentageCharge():
            rungs = (Rung(None, percent(charge.rate_percent)),)
            yield PriceRow(Shape("tiers", events=True), rungs, fixed=_number(charge.fixed))
        case DynamicCharge():
            yield _tiers(Rung(None, charge.multiplier))
        case CapacityCharge():
            capacity = Rung(charge.capacity, Decimal(0), _number(charge.amount))
            yield _tiers(capacity, Rung(None, _number(charge.overage_price)))
        case MatrixCharge():
            for cell in charge.cells:
                yield _tiers(Rung(None, _number(cell.unit_price)), label=label_of(cell))
            default = charge.default_price
            yield None if default is None else _tiers(Rung(None, _number(default)), label="default")


def label_of(cell: Cell) -> str:
    """What a slice says of the cell that it was sold in.

    >>> label_of(Cell.model_validate({"when": {"region": ["eu", "us"], "size": "l"}, "unit_price": "1"}))
    'region=eu|us,size=l'
    """
    return ",".join(f"{dimension}={'|'.join(values)}" for dimension, values in cell.when.items())


def percent(rate_percent: Decimal) -> Decimal:
    """A percentage as a factor, exactly.

    >>> percent(Decimal("2.9"))
    Decimal('0.029')
    """
    return rate_percent.scaleb(-2, EXACT)


def _tiers(*rungs: Rung, label: str = "") -> PriceRow:
    return PriceRow(Shape("tiers", tiers=len(rungs)), rungs, label)


def _rung(tier: Tier | PercentageTier) -> Rung:
    price = _number(tier.unit_price) if isinstance(tier, Tier) else percent(tier.rate_percent)
    return Rung(tier.up_to, price, _number(tier.flat), None if tier.cap is None else _number(tier.cap))


def _number(price: Decimal | dict[str, Decimal]) -> Decimal:
    assert isinstance(price, Decimal), "a price of a book in several currencies: rating sees a book of one"
    return price
