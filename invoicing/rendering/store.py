"""Sellers in PostgreSQL.

A shell. Decides that a document has the seller that was in force at its issue, so that it looks the same for ever; a
document that was issued before there was a seller has the first one.
"""

from datetime import datetime

import sqlalchemy as sa

from schemas.party import Seller


def apply_seller(connection: sa.Connection, tenant: str, seller: Seller, *, applied_at: datetime) -> bool:
    """Put this seller in force from now on. False when it is in force already. The caller commits."""
    key = {"tenant": tenant}
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended('seller ' || :tenant, 0))"), key)
    newest = "SELECT digest FROM sellers WHERE tenant = :tenant ORDER BY ordinal DESC LIMIT 1"
    if connection.execute(sa.text(newest), key).scalar_one_or_none() == seller.digest:
        return False
    connection.execute(
        sa.text("""INSERT INTO sellers (tenant, digest, body, applied_at)
                   VALUES (:tenant, :digest, CAST(:body AS json), :applied_at)"""),
        {**key, "digest": seller.digest, "body": seller.canonical(), "applied_at": applied_at},
    )
    return True


def seller_at(connection: sa.Connection, tenant: str, issued_at: datetime) -> Seller | None:
    """The seller of what was issued at this instant, or None when there never was one."""
    query = """
        SELECT CAST(body AS text) FROM sellers WHERE tenant = :tenant
        ORDER BY applied_at <= :issued_at DESC, CASE WHEN applied_at <= :issued_at THEN -ordinal ELSE ordinal END
        LIMIT 1"""
    body = connection.execute(sa.text(query), {"tenant": tenant, "issued_at": issued_at}).scalar_one_or_none()
    return None if body is None else Seller.from_canonical(body)
