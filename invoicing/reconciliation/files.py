"""Settlement files: CSV texts become rows that can be matched. Core.

Decides what a column means, by a mapping; owns that an amount is read exactly or not at all. A row that can't be read
is kept with its fault, and ends as an outcome like all others.
"""

from dataclasses import dataclass
from typing import Annotated

import polars as pl
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from invoicing.reconciliation.matching import REFERENCES, ROWS
from schemas.configuration import ConfigurationError, Fault, faults_of, parse_yaml
from schemas.money import MINOR_UNITS

_AMOUNT = r"^([+-]?)(\d{1,15})(?:\.(\d*))?$"
Columns = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
"""One column, or several of which the first that the file has counts."""


class Mapping(BaseModel):
    """Which columns of a file say what. Amounts are in units of the currency, with a point."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: Annotated[Columns, Field(min_length=1, max_length=len(REFERENCES))]
    """How the file names a payment: all that it has are tried, in this order."""
    gross: Columns
    currency: Columns
    date: Columns
    """Of the payment; the first ten characters count, as YYYY-MM-DD."""
    fee: Columns = ()
    """Without it, the difference of gross and net, or nothing."""
    net: Columns = ()
    """Without it, gross less fee."""
    customer: Columns = ()
    payout: Columns = ()
    """Without it, all rows are of the payout that is asked for."""
    kind: Columns = ()
    fee_kinds: tuple[str, ...] = ("fee",)
    """The kinds of rows that are fees of the gateway itself: they settle no payment."""
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","


STRIPE = Mapping(
    reference=("source_id", "charge_id", "payment_intent_id", "balance_transaction_id"),
    gross=("gross",),
    fee=("fee",),
    net=("net",),
    currency=("currency",),
    date=("created_utc", "created", "available_on_utc", "available_on"),
    payout=("automatic_payout_id",),
    kind=("reporting_category",),
)
"""Stripe's report payout_reconciliation.itemized.5. Its customer_id is Stripe's own, not a customer of ours."""


@dataclass(frozen=True)
class Settlement:
    """The rows of a payout (columns `matching.ROWS`), and how many rows of the file are of others."""

    rows: pl.DataFrame
    others: int


def parse_mapping(text: str, file: str) -> Mapping:
    """The mapping that a YAML text holds. Raises ConfigurationError with all faults.

    >>> parse_mapping("{reference: ref, gross: amount, currency: ccy, date: [paid, booked]}", "bank.yaml").date
    ('paid', 'booked')
    """
    try:
        return Mapping.model_validate(parse_yaml(text, file))
    except ValidationError as error:
        raise ConfigurationError(faults_of(error, file)) from error


def settlement_rows(text: str, file: str, mapping: Mapping, *, payout: str) -> Settlement:
    r"""The rows of a payout in a CSV text with a header. Raises ConfigurationError when a needed column is not there.

    >>> text = "ref,amount,ccy,paid\nch_1,12.5,usd,2026-01-31 10:00:00\nch_2,1.005,USD,2026-01-31\n"
    >>> bank = parse_mapping("{reference: ref, gross: amount, currency: ccy, date: paid}", "bank.yaml")
    >>> rows = settlement_rows(text, "bank.csv", bank, payout="po_1").rows
    >>> rows.select("reference", "gross_minor", "net_minor", "fault").rows()
    [('ch_1', 1250, 1250, ''), ('ch_2', None, None, 'gross 1.005 is no amount of USD')]
    """
    try:
        table = pl.read_csv(text.encode(), separator=mapping.separator, infer_schema=False).fill_null("")
    except pl.exceptions.PolarsError as error:
        raise ConfigurationError([Fault(file, "", str(error).splitlines()[0], "allowed: CSV with a header")]) from error
    _refuse_missing(table, file, mapping)
    count = table.height
    if column := _first(table, mapping.payout):
        table = table.filter(pl.col(column) == payout)
    names = [name for name in mapping.reference if name in table.columns]
    references = [pl.col(name) for name in names] + [pl.lit("")] * (len(REFERENCES) - len(names))
    currency = pl.col(_first(table, mapping.currency)).str.to_uppercase()
    rows = table.select(
        *[text.alias(name) for name, text in zip(REFERENCES, references, strict=True)],
        _text(table, mapping.kind).alias("kind"),
        _text(table, mapping.customer).alias("customer"),
        currency.alias("currency"),
        currency.replace_strict(MINOR_UNITS, default=None, return_dtype=pl.Int64).alias("units"),
        pl.col(_first(table, mapping.date)).str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False).alias("occurred_on"),
        *[_text(table, getattr(mapping, name)).alias(name) for name in ("gross", "fee", "net")],
    )
    return Settlement(_read(rows, mapping), count - table.height)


def is_stripe(text: str) -> bool:
    """Whether a CSV text is Stripe's report, by its header."""
    header = text.partition("\n")[0].replace('"', "").strip().split(",")
    return {"automatic_payout_id", "balance_transaction_id", "gross"} <= set(header)


def _refuse_missing(table: pl.DataFrame, file: str, mapping: Mapping) -> None:
    faults = [
        Fault(
            file,
            " or ".join(wanted),
            "not there",
            f"allowed: a column for {name}; there are {', '.join(table.columns)}",
        )
        for name in ("reference", "gross", "currency", "date", "fee", "net", "customer", "payout", "kind")
        if (wanted := getattr(mapping, name)) and not _first(table, wanted)
    ]
    if faults:
        raise ConfigurationError(faults)


def _read(rows: pl.DataFrame, mapping: Mapping) -> pl.DataFrame:
    """The rows with amounts in minor units. The gateway's own fees have a gross of zero, and are fees alone."""
    amounts = {name: _minor(name) for name in ("gross", "fee", "net")}
    rows = rows.with_columns(amounts[name].alias(f"{name}_minor") for name in amounts)
    faults = [
        pl.when(pl.col("units").is_null()).then(pl.format("currency {} is not known", pl.col("currency"))),
        pl.when(pl.col("occurred_on").is_null()).then(pl.lit("the date is none")),
        pl.when((pl.col("gross") == "") & pl.col("units").is_not_null()).then(pl.lit("there is no gross amount")),
        *[
            pl.when((pl.col(name) != "") & pl.col(f"{name}_minor").is_null() & pl.col("units").is_not_null()).then(
                pl.format("{} {} is no amount of {}", pl.lit(name), pl.col(name), pl.col("currency"))
            )
            for name in amounts
        ],
    ]
    gross, fee, net = (pl.col(f"{name}_minor") for name in amounts)
    rows = rows.with_columns(
        pl.coalesce(*faults, pl.lit("")).alias("fault"), pl.col("kind").is_in(list(mapping.fee_kinds)).alias("is_fee")
    ).with_columns(fee_minor=pl.coalesce(fee, gross - net, pl.lit(0)))
    rows = rows.with_columns(net_minor=pl.coalesce(net, gross - fee))
    own = pl.col("is_fee") & (gross - fee == net)
    readable = pl.col("fault") == ""
    rows = rows.with_columns(
        gross_minor=pl.when(own).then(0).otherwise(gross),
        fee_minor=pl.when(own).then(-net).otherwise(fee),
        kind=pl.when("is_fee").then(pl.lit("fee")).otherwise(pl.lit("payment")),
    ).with_columns(pl.when(readable).then(f"{name}_minor").alias(f"{name}_minor") for name in amounts)
    return rows.select(pl.col(name).cast(kind) for name, kind in ROWS.items())


def _minor(name: str) -> pl.Expr:
    """An amount as text in minor units, exactly; null where it is none of its currency."""
    parts = pl.col(name).str.strip_chars().str.extract_groups(_AMOUNT)
    sign, whole = parts.struct.field("1"), parts.struct.field("2")
    decimals = parts.struct.field("3").fill_null("").str.strip_chars_end("0")
    padded = (decimals + pl.lit("0000")).str.slice(0, pl.col("units"))
    fits = decimals.str.len_bytes() <= pl.col("units")
    return pl.when(fits).then((sign + whole + padded).cast(pl.Int64, strict=False))


def _first(table: pl.DataFrame, names: tuple[str, ...]) -> str:
    return next((name for name in names if name in table.columns), "")


def _text(table: pl.DataFrame, names: tuple[str, ...]) -> pl.Expr:
    column = _first(table, names)
    return pl.col(column) if column else pl.lit("")
