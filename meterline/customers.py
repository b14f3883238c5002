"""Who pays for which subjects, for the queries of usage: the customers of a tenant's latest stored contracts."""

from collections.abc import Mapping
from functools import lru_cache

import sqlalchemy as sa

from invoicing.store import latest_contracts
from schemas.contract import Contracts


def customers_of(database: sa.Engine, tenant: str) -> Mapping[str, tuple[str, ...]]:
    """The subjects of each customer, whatever day its contract starts on; none where no contracts were applied."""
    with database.connect() as connection:
        stored = latest_contracts(connection, tenant)
    return _subjects(stored.body) if stored else {}


@lru_cache(maxsize=4)
def _subjects(canonical: str) -> Mapping[str, tuple[str, ...]]:
    return {contract.customer: contract.subjects for contract in Contracts.from_canonical(canonical).contracts}
