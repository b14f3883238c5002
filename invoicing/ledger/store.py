"""The ledger's tables in PostgreSQL: posting, reading, closing.

A shell. Every function works in the transaction of the connection it is given, which must be READ COMMITTED; the caller
commits. The rules of the books are the database's own and speak up at the commit at the latest. Who posts for a tenant
waits for those who post for it already: its entries are a chain. All of it runs as the role that sees one tenant.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise
from typing import Any

import polars as pl
import psycopg
import sqlalchemy as sa

from invoicing.ledger.chain import chained
from invoicing.ledger.stretch import Entries, Lines, Stretch
from schemas.invoice import Columns
from schemas.journal import CHAINED, GENESIS, POSTINGS, Account
from stores.columns import read_columns
from stores.postgres import as_tenant, copy_in, copying_for

STRETCH_ENTRIES_MAX = 10_000  # ten megabytes at a time: larger ones leave the cache of the processor
_LOOK_UP_MAX = 1_000
_DIGESTS = ("content_digest", "previous_hash", "hash")
_ENTRY_COLUMNS = (
    "tenant", "sequence", "id", "template", "document_kind", "document_id", "document_version", "part", "relates_to",
    "relates_to_period", "effective_at", "booked_at", "description", "content_digest", "previous_hash", "hash",
)  # fmt: skip
_POSTING_COLUMNS = ("tenant", "sequence", "position", "account", "customer", "currency", "dimension", "amount_minor")
_READ_ENTRY = ", ".join(
    f"encode({name}, 'hex') AS {name}" if name in _DIGESTS
    else f"replace(CAST({name} AS text), '-', '') AS {name}" if name in {"id", "relates_to"} else name
    for name in CHAINED
)  # fmt: skip
_LINE: Columns = {"sequence": pl.Int64} | {name: kind for name, kind in POSTINGS.items() if name != "entry_id"}
_RAW_ENTRY = {
    "sequence": ("sequence", "bigint"), "template": ("template", "text"), "document_kind": ("document_kind", "text"),
    "document_id": ("document_id", "text"), "document_version": ("document_version", "integer"),
    "part": ("part", "integer"), "relates_to": ("coalesce(encode(uuid_send(relates_to), 'hex'), '')", "text"),
    "relates_to_period": ("coalesce(relates_to_period, '')", "text"), "effective_at": ("effective_at", "date"),
    "booked_at": ("booked_at", "timestamptz"), "description": ("description", "text"), "id": ("id", "uuid"),
    "content_digest": ("content_digest", "sha256"), "previous_hash": ("previous_hash", "sha256"),
    "hash": ("hash", "sha256"),
}  # fmt: skip
_RAW_LINE = {
    "sequence": ("sequence", "bigint"), "position": ("position", "smallint"), "account": ("account", "smallint"),
    "currency": ("currency", "text"), "customer": ("customer", "text"), "dimension": ("dimension", "text"),
    "amount_minor": ("amount_minor", "bigint"),
}  # fmt: skip
_RANGE = "(SELECT * FROM {} WHERE tenant = %(tenant)s AND sequence BETWEEN %(first)s AND %(last)s ORDER BY {}) AS range"
_SEQUENCE_MIN, _SEQUENCE_MAX = -(2**63), 2**63 - 1


class OtherContentError(ValueError):
    """Something with this identity is stored already, with other content. Nothing was written."""


@dataclass(frozen=True)
class Head:
    """The last entry of a tenant's chain."""

    sequence: int = 0
    hash: str = GENESIS
    booked_at: datetime | None = None


def post(connection: sa.Connection, entries: pl.DataFrame, postings: pl.DataFrame) -> int:
    """Post entries (columns `schemas.journal.ENTRIES`) with their postings for good; returns how many were new.

    In this order: (1) wait for whoever posts for the tenant, so that the chain's end stays where it is; (2) leave out
    what is posted with the same content; (3) chain what is new; (4) write it, by COPY, which the
    login does: whether rows are the tenant's own is then checked by the tables' triggers. Raises OtherContentError when
    an id is posted with other content.
    """
    new = 0
    tenants = entries["tenant"].unique(maintain_order=True).to_list()
    for tenant in tenants:
        own = entries if len(tenants) == 1 else entries.filter(pl.col("tenant") == tenant)
        with as_tenant(connection, tenant):
            new += _post(connection, tenant, own, postings)
    return new


def hold(connection: sa.Connection, tenant: str) -> None:
    """Wait for whoever posts for the tenant, and let nobody else until the transaction ends.

    Who locks something else of the tenant's money as well does this first: one order for all, so that none waits for
    each other.
    """
    lock = "SELECT pg_advisory_xact_lock(hashtextextended('ledger ' || :tenant, 0))"
    connection.execute(sa.text(lock), {"tenant": tenant})


def head(connection: sa.Connection, tenant: str) -> Head:
    """The end of the tenant's chain."""
    query = """SELECT sequence, encode(hash, 'hex'), booked_at FROM journal_entries WHERE tenant = :tenant
               ORDER BY sequence DESC LIMIT 1"""
    row = connection.execute(sa.text(query), {"tenant": tenant}).one_or_none()
    return Head() if row is None else Head(*row)


def entries(
    connection: sa.Connection,
    tenant: str,
    *,
    entry_id: str | None = None,
    document: str | None = None,
    account: int | None = None,
    since: date | None = None,
    through: date | None = None,
    after: int = 0,
    limit: int | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The entries that all the given conditions hold for, in the chain's order, and their postings.

    Columns `schemas.journal.CHAINED` and `POSTINGS`. `document` is a document's id; `since` and `through` are of the
    accounting day; `after` is a sequence, to page on.
    """
    conditions = {
        "id = CAST(:entry_id AS uuid)": entry_id, "document_id = :document": document, "effective_at >= :since": since,
        "effective_at <= :through": through, "EXISTS (SELECT FROM postings p WHERE p.tenant = e.tenant AND "
        "p.sequence = e.sequence AND p.account = :account)": account,
    }  # fmt: skip
    wanted = " AND ".join(sql for sql, value in conditions.items() if value is not None) or "true"
    query = f"""SELECT {_READ_ENTRY} FROM journal_entries e WHERE tenant = :tenant AND sequence > :after AND {wanted}
                ORDER BY sequence LIMIT :limit"""  # noqa: S608  names of ours
    keys = {"tenant": tenant, "entry_id": entry_id, "document": document, "since": since, "through": through,
            "account": account, "after": after, "limit": limit}  # fmt: skip
    with as_tenant(connection, tenant):
        found = _frame(connection, query, CHAINED, keys)
        sequences = found["sequence"].to_list()
        query = """SELECT e.sequence, position, account, customer, currency, dimension, amount_minor FROM postings e
                   WHERE tenant = :tenant AND sequence = ANY (:sequences) ORDER BY sequence, position"""
        lines = _frame(connection, query, _LINE, {"tenant": tenant, "sequences": sequences})
    ids = found.select("sequence", pl.col("id").alias("entry_id"))
    return found, lines.join(ids, on="sequence", maintain_order="left").select(*POSTINGS)


def ranges(connection: sa.Connection, tenant: str) -> list[tuple[int, int]]:
    """The first and last sequences of the stretches that the tenant's chain is read in; together they have all.

    The first one begins, and the last one ends, where sequences do: what stands outside of the chain is read as well.
    """
    with as_tenant(connection, tenant):
        last = head(connection, tenant).sequence
    bounds = [_SEQUENCE_MIN, *range(STRETCH_ENTRIES_MAX + 1, last + 1, STRETCH_ENTRIES_MAX), _SEQUENCE_MAX + 1]
    return [(first, end - 1) for first, end in pairwise(bounds)]


def stretch(connection: sa.Connection, tenant: str, first: int, last: int) -> Stretch:
    """The tenant's entries of these sequences, in their order, and the postings of the same."""
    keys = {"tenant": tenant, "first": first, "last": last}
    with as_tenant(connection, tenant):
        # by the index, in its order: without statistics the planner would rather sort
        connection.execute(
            sa.text("SELECT set_config('enable_bitmapscan', 'off', true), set_config('jit', 'off', true)")
        )
        found = read_columns(connection, _RAW_ENTRY, _RANGE.format("journal_entries", "sequence"), keys)
        lines = read_columns(connection, _RAW_LINE, _RANGE.format("postings", "sequence, position"), keys)
    return Stretch(tenant, Entries(**found), Lines(**lines))


def stretches(
    connection: sa.Connection, tenant: str, *, first: int = 1, last: int | None = None, entries_max: int = 50_000
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """The tenant's chain as frames, a stretch at a time: entries (columns `schemas.journal.CHAINED`) and postings.

    All of it, or from the sequence `first` through `last`. The postings have the `sequence` of their entry instead of
    its id; null texts are empty. The transaction should be REPEATABLE READ, so that nothing comes between stretches.
    """
    end = head(connection, tenant).sequence if last is None else last
    for start in range(first, end + 1, entries_max):
        through = start + entries_max - 1  # behind the end, too: a posting without an entry may stand there
        yield stretch(connection, tenant, start, through if last is None else min(through, last)).frames()


def dated(connection: sa.Connection, tenant: str, *, since: date | None, through: date | None) -> tuple[int, int]:
    """The first and the last sequence of the entries dated in these days; (1, 0) when there is none."""
    query = """SELECT coalesce(min(sequence), 1), coalesce(max(sequence), 0) FROM journal_entries
               WHERE tenant = :tenant AND effective_at >= coalesce(:since, CAST('-infinity' AS date))
               AND effective_at <= coalesce(:through, CAST('infinity' AS date))"""
    with as_tenant(connection, tenant):
        found = connection.execute(sa.text(query), {"tenant": tenant, "since": since, "through": through}).one()
    return int(found[0]), int(found[1])


def balances(
    connection: sa.Connection,
    tenant: str,
    *,
    effective_through: date | None = None,
    booked_through: datetime | None = None,
    by: Sequence[str] = (),
) -> pl.DataFrame:
    """Each account's balance by currency and, as wanted, by customer and dimension, on both clocks.

    Of entries dated on or before `effective_through` and booked at or before `booked_through`: what the books said of
    that day at that instant. Columns: account, name, those of `by`, currency, balance_minor (a debit is above zero),
    without rows of zero. In each currency the balances sum to zero.
    """
    assert set(by) <= {"customer", "dimension"}, by
    columns = ["account", *by, "currency"]
    dated = effective_through is not None or booked_through is not None
    where = """JOIN journal_entries e ON e.tenant = p.tenant AND e.sequence = p.sequence
               AND e.effective_at <= coalesce(:effective, CAST('infinity' AS date))
               AND e.booked_at <= coalesce(:booked, CAST('infinity' AS timestamptz))""" if dated else ""  # fmt: skip
    named = ", ".join(f"p.{name}" for name in columns)
    query = f"""SELECT {named}, CAST(sum(p.amount_minor) AS bigint) FROM postings p {where}
                WHERE p.tenant = :tenant GROUP BY {named} HAVING sum(p.amount_minor) <> 0"""  # noqa: S608  ours
    keys = {"tenant": tenant, "effective": effective_through, "booked": booked_through}
    schema = {name: POSTINGS[name] for name in columns} | {"balance_minor": pl.Int64}
    with as_tenant(connection, tenant):
        found = _frame(connection, query, schema, keys)
    names = {account.value: account.title for account in Account}
    named_accounts = pl.col("account").replace_strict(names, return_dtype=pl.String).alias("name")
    return found.select("account", named_accounts, *by, "currency", "balance_minor").sort("currency", "account", *by)


def tenants(connection: sa.Connection) -> list[str]:
    """Whoever has entries. For the owner of the tables: the application's role sees one tenant alone."""
    query = """WITH RECURSIVE known AS (
                   SELECT min(tenant) AS tenant FROM journal_entries
                   UNION ALL SELECT (SELECT min(tenant) FROM journal_entries WHERE tenant > known.tenant) FROM known
                   WHERE known.tenant IS NOT NULL)
               SELECT tenant FROM known WHERE tenant IS NOT NULL"""
    return list(connection.execute(sa.text(query)).scalars())


def _post(connection: sa.Connection, tenant: str, own: pl.DataFrame, postings: pl.DataFrame) -> int:
    # 1: wait
    hold(connection, tenant)
    if own.height > _LOOK_UP_MAX:  # so many are new, as a rule: the index tells when one is not
        try:
            with connection.begin_nested():
                return _write(connection, tenant, own, postings)
        except sa.exc.IntegrityError as error:
            if not isinstance(error.orig, psycopg.errors.UniqueViolation):
                raise
    # 2: leave out
    fresh = _fresh(connection, own)
    return _write(connection, tenant, fresh, postings) if fresh.height else 0


def _write(connection: sa.Connection, tenant: str, fresh: pl.DataFrame, postings: pl.DataFrame) -> int:
    # 3: chain
    end = head(connection, tenant)
    placed = chained(fresh, after=end.sequence, previous_hash=end.hash, booked_from=end.booked_at)
    of_fresh = postings.join(
        placed.select("id", "tenant", "sequence"), left_on="entry_id", right_on="id", maintain_order="left"
    )
    # 4: write
    written = placed.with_columns(("\\x" + pl.col(name)).alias(name) for name in _DIGESTS)
    with copying_for(connection, tenant):
        copy_in(connection, "journal_entries", written.select(_ENTRY_COLUMNS))
        copy_in(connection, "postings", of_fresh.select(_POSTING_COLUMNS))
    return placed.height


def _fresh(connection: sa.Connection, rows: pl.DataFrame) -> pl.DataFrame:
    """The entries whose id is not posted. Raises OtherContentError when one is, with another content digest."""
    query = sa.text("""SELECT replace(CAST(id AS text), '-', ''), encode(content_digest, 'hex') FROM journal_entries
                       WHERE id = ANY (CAST(:ids AS uuid[]))""")
    stored = dict(tuple(row) for row in connection.execute(query, {"ids": rows["id"].to_list()}))
    if not stored:
        return rows
    for row_id, content in rows.select("id", "content_digest").iter_rows():
        if stored.get(row_id, content) != content:
            raise OtherContentError(
                f"journal_entries: {row_id} is posted with the content {stored[row_id]}, now it is {content}; posted "
                "rows never change, post a correcting entry"
            )
    return rows.filter(~pl.col("id").is_in(list(stored)))


def _frame(connection: sa.Connection, query: str, schema: Columns, keys: dict[str, Any]) -> pl.DataFrame:
    rows = connection.execute(sa.text(query), keys)
    return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")
