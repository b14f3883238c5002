"""The rows of a settlement file against the entries on the gateway's clearing account. Core.

Decides which row pays which entry; owns the invariants that every row and every entry has exactly one outcome, and that
the answer is the same in whatever order they come. Rows and entries that say the same are interchangeable, and are
counted: the n-th of one goes with the n-th of the other.

Steps, in this order, each over what the steps before left over: (1) rows that can't be read, and rows that are the
gateway's own fees, which no entry stands for; (2) the same reference, currency and amount; (3) the same reference, with
another amount, currency or payout: a mismatch, because the reference says what is meant; (4) the same customer,
currency and amount, on the same day, then a day later, a day earlier, two days later and so on: what has no reference
is found by what it is. Last because it is the weakest.
"""

from dataclasses import dataclass
from enum import StrEnum

import polars as pl

from schemas.identity import content_digest, digests
from schemas.invoice import Columns


class Outcome(StrEnum):
    """What became of a row or an entry."""

    MATCHED = "matched"
    MISMATCHED = "mismatched"
    UNMATCHED_IN_FILE = "unmatched_in_file"
    UNMATCHED_IN_LEDGER = "unmatched_in_ledger"


REFERENCES = ("reference", "reference_2", "reference_3", "reference_4")

ROWS: Columns = {
    **dict.fromkeys(REFERENCES, pl.String),  # as the file names the payment, best first; empty: none
    "kind": pl.String,  # payment or fee; what it settles
    "customer": pl.String,  # empty where the file names none
    "currency": pl.String,
    "gross_minor": pl.Int64,  # null where the row can't be read
    "fee_minor": pl.Int64,
    "net_minor": pl.Int64,
    "occurred_on": pl.Date,
    "fault": pl.String,  # what can't be read; empty: nothing
}
"""Columns of the rows of a settlement file."""

ENTRIES: Columns = {
    "entry_id": pl.String,
    "reference": pl.String,  # the id of the payment that the entry is of
    "customer": pl.String,
    "currency": pl.String,
    "dimension": pl.String,  # the payout that the posting names; empty where it was not known
    "amount_minor": pl.Int64,  # what the gateway owes: below zero for a refund
    "effective_at": pl.Date,
}
"""Columns of what stands on the clearing account."""

MATCHES: Columns = {
    "id": pl.String,  # digest of what the outcome says
    "outcome": pl.String,  # Outcome
    "reason": pl.String,
    "reference": pl.String,
    "file_row": pl.String,  # digest of the row and its number among equal ones; null for an entry alone
    "entry_id": pl.String,  # null for a row alone
    "dimension": pl.String,  # of the entry's posting; empty for a row alone
    "customer": pl.String,
    "currency": pl.String,  # of the row; of the entry where there is no row
    "gross_minor": pl.Int64,
    "fee_minor": pl.Int64,
    "net_minor": pl.Int64,
    "ledger_minor": pl.Int64,
}
"""Columns of outcomes, sorted by id."""


@dataclass(frozen=True)
class Result:
    """The outcomes (columns MATCHES) and their digest."""

    matches: pl.DataFrame
    digest: str


def reconcile(rows: pl.DataFrame, entries: pl.DataFrame, *, payout: str, window_days: int = 3) -> Result:
    """The outcome of each row (columns ROWS) and each entry (columns ENTRIES) of a payout.

    An entry that names another payout has an outcome only where a row has its reference.
    """
    left = _identified(rows, payout)
    open_entries = entries.select(*ENTRIES).sort("entry_id").with_row_index("entry")
    found: list[pl.DataFrame] = []
    # 1: no entry stands for these
    unread, fees = pl.col("fault") != "", (pl.col("kind") == "fee") & _adds_up()
    found.append(_alone(left.filter(unread), Outcome.UNMATCHED_IN_FILE, pl.col("fault")))
    left = left.filter(~unread)
    found.append(_alone(left.filter(fees), Outcome.MATCHED, pl.lit("fee of the gateway itself")))
    left = left.filter(~fees)
    # 2: and 3: by reference
    same = [("currency", "currency"), ("gross_minor", "amount_minor")]
    for exact in (same, []):
        for name in REFERENCES:
            pairs, left, open_entries = _paired(left, open_entries, [(name, "reference"), *exact], pl.col(name) != "")
            found.append(_together(pairs, payout, pl.col(name), "by reference"))
    open_entries = open_entries.filter(pl.col("dimension").is_in(["", payout]))
    # 4: by what it is
    for days in sorted(range(-window_days, window_days + 1), key=lambda shift: (abs(shift), -shift)):
        shifted = open_entries.with_columns((pl.col("effective_at") + pl.duration(days=days)).alias("day"))
        keys = [*same, ("customer", "customer"), ("occurred_on", "day")]
        pairs, left, open_entries = _paired(left, shifted, keys, pl.col("occurred_on").is_not_null())
        reference = pl.when(pl.col("reference") == "").then("reference_right").otherwise("reference")
        found.append(_together(pairs, payout, reference, "by customer, amount and day"))
    found.append(_alone(left, Outcome.UNMATCHED_IN_FILE, pl.lit("no entry for it on the clearing account")))
    found.append(_of_ledger(open_entries))
    matches = pl.concat(found)
    named = matches.select(
        pl.col("outcome", "reason", "file_row", "entry_id", "dimension", "ledger_minor").cast(pl.String).fill_null("")
    )
    ids = named.select(digests(payout, *[pl.col(name) for name in named.columns]).alias("id")).to_series()
    matches = matches.with_columns(ids).select(*MATCHES).sort("id")
    return Result(matches, content_digest("\n".join(matches["id"]).encode()))


def _identified(rows: pl.DataFrame, payout: str) -> pl.DataFrame:
    """The rows with their `file_row`, in its order: the digest of what they say, and which of equal ones they are."""
    said = rows.select(pl.col(name).cast(kind) for name, kind in ROWS.items())
    texts = [pl.col(name) for name, kind in ROWS.items() if kind == pl.String]
    numbers = [pl.col(name).cast(pl.String).fill_null("") for name, kind in ROWS.items() if kind != pl.String]
    said = said.with_columns(digests(payout, pl.concat_str(numbers, separator="|"), *texts).alias("file_row"))
    numbered = _numbered(said, ["file_row"])
    again = pl.when(pl.col("nth") > 0).then(pl.format("-{}", "nth")).otherwise(pl.lit(""))
    return numbered.with_columns(pl.col("file_row") + again).drop("nth").with_row_index("place")


def _numbered(frame: pl.DataFrame, key: list[str]) -> pl.DataFrame:
    """The frame in the order of a key, with `nth`: which of the rows with the same key a row is, from 0."""
    ordered = frame.sort(key, maintain_order=True).with_row_index("at")
    begins = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in key) | (pl.col("at") == 0)
    since = pl.when(begins).then("at").forward_fill()
    return ordered.with_columns((pl.col("at") - since).alias("nth")).drop("at")


def _paired(
    rows: pl.DataFrame, entries: pl.DataFrame, keys: list[tuple[str, str]], able: pl.Expr
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Pairs of rows and entries with the same keys, the n-th with the n-th; and the rows and entries without one."""
    ours, theirs = [name for name, _ in keys], [name for _, name in keys]
    candidates = rows.filter(able)
    right = entries.select(*[pl.col(name).alias(f"{name}_right") for name in ("entry", *ENTRIES)], *theirs)
    right = right.join(candidates.select(ours), left_on=theirs, right_on=ours, how="semi", maintain_order="left")
    pairs = _numbered(candidates, ours).join(
        _numbered(right, theirs), left_on=[*ours, "nth"], right_on=[*theirs, "nth"], how="inner"
    )
    if pairs.is_empty():
        return pairs, rows, entries
    left = rows.join(pairs, on="place", how="anti", maintain_order="left")
    return pairs, left, entries.join(pairs, left_on="entry", right_on="entry_right", how="anti", maintain_order="left")


def _together(pairs: pl.DataFrame, payout: str, reference: pl.Expr, how: str) -> pl.DataFrame:
    """The outcome of pairs: matched, or mismatched with all that differs."""
    differs = {
        "currency": pl.col("currency") != pl.col("currency_right"),
        "amount": pl.col("gross_minor") != pl.col("amount_minor_right"),
        "fee": ~_adds_up(),
        "payout": ~pl.col("dimension_right").is_in(["", payout]),
    }
    words = pl.concat_str(
        [pl.when(wrong).then(pl.lit(name)) for name, wrong in differs.items()], separator=", ", ignore_nulls=True
    )
    wrong = pl.any_horizontal(differs.values())
    return pairs.select(
        pl.when(wrong).then(pl.lit(Outcome.MISMATCHED.value)).otherwise(pl.lit(Outcome.MATCHED.value)).alias("outcome"),
        pl.when(wrong).then(words + pl.lit(f" differs, found {how}")).otherwise(pl.lit(how)).alias("reason"),
        reference.alias("reference"),
        "file_row",
        pl.col("entry_id_right").alias("entry_id"),
        pl.col("dimension_right").alias("dimension"),
        pl.col("customer_right").alias("customer"),
        "currency", "gross_minor", "fee_minor", "net_minor",
        pl.col("amount_minor_right").alias("ledger_minor"),
    )  # fmt: skip


def _alone(rows: pl.DataFrame, outcome: Outcome, reason: pl.Expr) -> pl.DataFrame:
    return rows.select(
        pl.lit(outcome.value).alias("outcome"), reason.alias("reason"), "reference", "file_row",
        pl.lit(None, pl.String).alias("entry_id"), pl.lit("").alias("dimension"),
        "customer", "currency", "gross_minor", "fee_minor", "net_minor",
        pl.lit(None, pl.Int64).alias("ledger_minor"),
    )  # fmt: skip


def _of_ledger(entries: pl.DataFrame) -> pl.DataFrame:
    return entries.select(
        pl.lit(Outcome.UNMATCHED_IN_LEDGER.value).alias("outcome"),
        pl.lit("no row of the file pays it").alias("reason"),
        "reference",
        pl.lit(None, pl.String).alias("file_row"),
        "entry_id", "dimension", "customer", "currency",
        *[pl.lit(None, pl.Int64).alias(f"{name}_minor") for name in ("gross", "fee", "net")],
        pl.col("amount_minor").alias("ledger_minor"),
    )  # fmt: skip


def _adds_up() -> pl.Expr:
    """Whether the row's fee is what is between gross and net."""
    return pl.col("gross_minor") - pl.col("fee_minor") == pl.col("net_minor")
