"""Months of billing from seeds: whatever dies, repeats or happens at once, what is stored is what was foretold."""

import pytest
import sqlalchemy as sa

from tests.conftest import fresh_database
from tests.simulation.billing.simulation import run

SEEDS = (2, 4, 5)
STEPS = 70


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_is_billed_as_the_auditor_foretells(postgres_url: str, seed: int) -> None:
    """Balances, invoices, wallets and events after each step; once more undisturbed, the chain ends with one hash."""
    admin = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    try:
        told = run(seed, lambda: fresh_database(postgres_url), admin, steps=STEPS)
    finally:
        admin.dispose()
    assert told.crashes.total() > 0
    assert told.replays > 0
    assert told.entries > 0
