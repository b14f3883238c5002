"""What is owed whatever was used: minimum spend and commitment of a charge, steps 7 and 8 of the chain. Core."""

from collections.abc import Sequence

import polars as pl

from rating.discounts import NO_AMOUNT, at, in_force
from rating.exact import refuse_overflow, times
from rating.prices import EXACT, Term
from schemas.charges import Commitment
from schemas.money import AMOUNT

BILLIONTHS = pl.lit(10**9, pl.Int128)


def below_minimum(rows: pl.DataFrame, terms: Sequence[Term]) -> list[pl.DataFrame]:
    """What rows lack to their charge's minimum spend: a frame with the columns row, kind and amount, or none."""
    minima = [term.charge.minimum_spend for term in terms]
    if all(minimum is None for minimum in minima):
        return []
    missing = in_force(at(minima, "term", AMOUNT)) - pl.col("net")
    return _some(rows.select(row="line", kind=pl.lit("minimum_spend"), amount=missing))


def committed(
    rows: pl.DataFrame, minimums: Sequence[pl.DataFrame], terms: Sequence[Term], buckets: pl.DataFrame | None
) -> list[pl.DataFrame]:
    """The lines `overage` and `commitment` of charges with a commitment: columns row, kind and amount.

    A cost is what is left of a row, with what its minimum added; of a bucket it is its gross amount.
    """
    agreed = [term.charge.commitment for term in terms]
    if all(commitment is None for commitment in agreed):
        return []
    per_bucket = [commitment is not None and commitment.per == "bucket" for commitment in agreed]
    periods = [None if bucket else commitment for commitment, bucket in zip(agreed, per_bucket, strict=True)]
    costs = rows.filter(at([each is not None for each in periods], "term"))
    owed = in_force(at([None if each is None else each.amount for each in periods], "term", AMOUNT))
    costs = costs.select("term", row="line", cost="net", owed=owed)
    for minimum in minimums:
        more = minimum.select("row", more="amount")
        costs = costs.join(more, on="row", how="left", maintain_order="left")
        costs = costs.with_columns(cost=pl.col("cost") + pl.col("more").fill_null(NO_AMOUNT)).drop("more")
    if buckets is not None and any(per_bucket):
        of_bucket = buckets.with_columns(term=rows["term"].gather(buckets["row"])).filter(at(per_bucket, "term"))
        refuse_overflow(of_bucket["amount"], "the amount of a bucket")
        by_bucket = of_bucket.group_by("row", "bucket_at", maintain_order=True).agg(
            pl.first("term"), cost=pl.sum("amount")
        )
        amounts = [None if each is None else each.amount for each in agreed]
        by_bucket = by_bucket.select("term", "row", "cost", owed=at(amounts, "term", AMOUNT))
        costs = costs.vstack(by_bucket)
    over = over_of(pl.col("cost") - pl.col("owed"), factors_of(agreed), "term")
    true_up = at([each is not None and each.true_up for each in agreed], "term")
    under = pl.when(true_up).then((pl.col("owed") - pl.col("cost")).clip(lower_bound=NO_AMOUNT)).otherwise(NO_AMOUNT)
    told = costs.select("row", overage=over, commitment=under)
    for name in ("overage", "commitment"):
        refuse_overflow(told[name], f"the {name} of a charge")
    sums = told.group_by("row", maintain_order=True).sum()
    kinds = [sums.select("row", kind=pl.lit(kind), amount=kind) for kind in ("overage", "commitment")]
    return [line for kind in kinds for line in _some(kind, negative=True)]


def factors_of(commitments: Sequence[Commitment | None]) -> list[int | None]:
    """The overage factor of each commitment less 1, in billionths."""
    return [None if each is None else int((each.overage_factor - 1).scaleb(9, EXACT)) for each in commitments]


def over_of(over: pl.Expr, factors: Sequence[int | None], place: str) -> pl.Expr:
    """What use above a commitment costs beside its price: `over * (overage_factor - 1)`; 0 where nothing is above."""
    above = over.clip(lower_bound=NO_AMOUNT)
    return times(above, at(factors, place, pl.Int128), BILLIONTHS)


def _some(lines: pl.DataFrame, *, negative: bool = False) -> list[pl.DataFrame]:
    """The lines that owe something, in a list; none where there are none."""
    owed = pl.col("amount") != NO_AMOUNT if negative else pl.col("amount") > NO_AMOUNT
    wanted = lines.filter(owed)
    return [] if wanted.is_empty() else [wanted]
