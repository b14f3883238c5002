"""Levels of recurring charges at the end of months, in PostgreSQL.

A shell. Every function works in the transaction of the connection it is given; the caller commits. Owns that levels
are read back as they were found, or not at all.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl
import sqlalchemy as sa

from rating.levels import LEVELS, digest_of
from stores.postgres import copy_in


@dataclass(frozen=True)
class LevelRating:
    """A time that the levels at the end of a month were found."""

    period: str
    """The month: "2013-01"."""
    run_period: str
    """The run that found them."""
    cut: int
    contracts_digest: str
    digest: str
    """Of the levels; an empty text where no charge has one."""


def level_ratings(connection: sa.Connection, tenant: str) -> list[LevelRating]:
    """Each time that levels were found, by month, the one in force last."""
    query = """SELECT period, run_period, cut, contracts_digest, digest FROM level_ratings
               WHERE tenant = :tenant ORDER BY period, cut"""
    return [LevelRating(*row) for row in connection.execute(sa.text(query), {"tenant": tenant})]


def levels_of(connection: sa.Connection, tenant: str, rating: LevelRating) -> pl.DataFrame:
    """The levels that were found then (columns rating.levels.LEVELS). Raises ValueError when they are others now."""
    query = """SELECT customer, charge, group_key, cell, quantity FROM levels
               WHERE tenant = :tenant AND period = :period AND run_period = :run_period"""
    key = {"tenant": tenant, "period": rating.period, "run_period": rating.run_period}
    rows = [tuple(row) for row in connection.execute(sa.text(query), key)] if rating.digest else []
    found = pl.DataFrame(rows, schema=LEVELS, orient="row")
    found = found.sort("customer", "charge", "group", "cell")
    if digest_of(found) != rating.digest:
        raise ValueError(
            f"the levels at the end of {rating.period} are not those that the run of {rating.run_period} found:"
            f" their digest is {digest_of(found)}, it was {rating.digest}; restore the table levels from a backup"
        )
    return found


def keep_levels(connection: sa.Connection, tenant: str, found: Iterable[tuple[LevelRating, pl.DataFrame]]) -> None:
    """Write ratings and their levels (columns rating.levels.LEVELS, sorted) for good."""
    for rating, levels in found:
        connection.execute(
            sa.text("""INSERT INTO level_ratings
                       VALUES (:tenant, :period, :run_period, :cut, :contracts_digest, :digest)"""),
            {"tenant": tenant, **vars(rating)},
        )
        key = {"tenant": tenant, "period": rating.period, "run_period": rating.run_period}
        rows = levels.select(*[pl.lit(value).alias(name) for name, value in key.items()], *LEVELS)
        copy_in(connection, "levels", rows.rename({"group": "group_key"}))
