"""What a new price book would have done to a past month, over real stores."""

from collections.abc import Iterator
from datetime import UTC, datetime

import orjson
import polars as pl
import pytest
import sqlalchemy as sa

from invoicing import store as invoicing
from meterline.output import Table, Text
from meterline.price_simulation import simulate_prices
from meterline.system import StoredProgress, System
from schemas.contract import parse_contracts
from schemas.log import Limits, LogConfig
from schemas.meter import Meter
from schemas.price_book import parse_price_book
from schemas.tables import ROLLUPS
from schemas.tenant import DEFAULT_TENANT
from stores.clickhouse import Client, insert, query
from stores.postgres_log import open_log

BOOK = """
book: cloud
version: 1
effective_at: 2026-01-01
currency: USD
default_plan: free
plans:
  - {id: free, charges: [{id: calls, model: standard, meter: calls, unit_price: 0.10}]}
  - id: pro
    charges:
      - {id: base, model: flat, amount: 49}
      - {id: calls, model: graduated, meter: calls, tiers: [{up_to: 10, unit_price: 1}, {up_to: null, unit_price: 0.5}]}
"""
NEW = BOOK.replace("version: 1", "version: 2").replace("2026-01-01", "2027-01-01").replace("amount: 49", "amount: 39")
CONTRACTS = """
contracts:
  - {customer: acme, name: Acme, subjects: [a, b], plan: pro, starts_on: 2026-01-15}
  - {customer: kept, name: Kept, subjects: [k], plan: pro, starts_on: 2026-01-15, price_version: 1}
  - {customer: mid, name: Mid, subjects: [m], plan: pro, starts_on: 2026-01-15, cycle: {every: month, anchor: anniversary}}
  - {customer: berlin, name: Berlin, subjects: [z], plan: pro, starts_on: 2026-01-15, time_zone: Europe/Berlin}
"""
COLUMNS = ("customer", "currency", "before", "after", "difference")


@pytest.fixture
def app(database: sa.Engine, clickhouse: Client) -> Iterator[System]:
    """A system with a meter, a book, contracts and the usage of March."""
    log = open_log(database, 1)
    log.configure(LogConfig(limits=Limits(), meters=(Meter(slug="calls", event_type="c", aggregation="COUNT"),)))
    at = datetime(2026, 2, 1, tzinfo=UTC)
    book, contracts = parse_price_book(BOOK, "book.yaml", None), parse_contracts(CONTRACTS, "contracts.yaml")
    with database.begin() as connection:
        invoicing.apply_price_book(
            connection,
            DEFAULT_TENANT,
            book=book.book,
            version=1,
            digest=book.digest,
            body=book.canonical(),
            applied_at=at,
        )
        invoicing.apply_contracts(
            connection, DEFAULT_TENANT, digest=contracts.digest, body=contracts.canonical(), applied_at=at
        )
    used = [
        ("a", 3, 1, 0, 8), ("b", 3, 31, 23, 4), ("a", 4, 1, 0, 900), ("free", 3, 7, 7, 30),
        ("m", 2, 14, 23, 5), ("m", 2, 15, 0, 7), ("m", 3, 14, 23, 1), ("m", 3, 15, 0, 5),
        ("z", 2, 28, 23, 3), ("z", 3, 31, 22, 5),
    ]  # fmt: skip
    rows = [
        {
            "tenant": "default", "meter": "calls", "subject": subject, "dimensions": [], "epoch": 1, "count": count,
            "window_start": datetime(2026, month, day, hour, tzinfo=UTC), "sum": 0, "min": None, "max": None,
            "uniques": [], "latest": [],
        }
        for subject, month, day, hour, count in used
    ]  # fmt: skip
    insert(clickhouse, ROLLUPS, pl.DataFrame(rows, schema=ROLLUPS.frame), "t")
    yield System(database, clickhouse, log, StoredProgress(clickhouse, log))
    log.close()


def test_a_new_book_is_tried_on_a_past_month(app: System) -> None:
    """It holds whatever its date says; who stays on a version stays, and each period has the usage of its own days."""
    #  acme: 12 calls of two subjects; mid: from 15 February to 15 March 7 + 1; berlin: March begins 23:00 UTC of 28 February
    (table,) = simulate_prices(app, text=NEW.replace("0.10", "0.20"), file="new.yaml", period="2026-03")
    assert isinstance(table, Table)
    assert table.title == "2026-03 by cloud version 2: 4 differences; net, before taxes"
    assert table.columns == COLUMNS
    assert table.rows == [
        ["acme", "USD", "60.00", "50.00", "-10.00"],
        ["berlin", "USD", "52.00", "42.00", "-10.00"],
        ["mid", "USD", "57.00", "47.00", "-10.00"],
        ["free", "USD", "3.00", "6.00", "+3.00"],
        ["all 5, 4 differ", "USD", "221.00", "194.00", "-27.00"],
    ]
    with app.database.connect() as connection:
        assert len(invoicing.price_books(connection, DEFAULT_TENANT)) == 1
    assert query(app.clickhouse, "SELECT count() AS n FROM rollups")["n"].item() == 10


def test_other_contracts_a_limit_and_json(app: System) -> None:
    """Contracts of a file hold for the new prices alone; the limit bounds the customers, and the totals are of all."""
    text = CONTRACTS.replace("subjects: [a, b], plan: pro", "subjects: [a, b], plan: free")
    (told,) = simulate_prices(
        app,
        text=NEW,
        file="new.yaml",
        period="2026-03",
        contracts_text=text,
        contracts_file="c.yaml",
        limit=1,
        as_json=True,
    )
    assert isinstance(told, Text)
    assert orjson.loads(told.text) == {
        "customers": [
            {"customer": "acme", "currency": "USD", "before": "60.00", "after": "1.20", "difference": "-58.80"}
        ],
        "totals": [
            {
                "currency": "USD",
                "customers": 5,
                "before": "221.00",
                "after": "142.20",
                "difference": "-78.80",
                "differing": 3,
            }
        ],
    }


def test_what_cannot_be_simulated_is_told(app: System) -> None:
    """A month without periods, and a plan that the new book lacks."""
    with pytest.raises(LookupError, match="no charge is of a billing period that ends in 2025-03"):
        list(simulate_prices(app, text=NEW.replace("default_plan: free", ""), file="new.yaml", period="2025-03"))
    with pytest.raises(
        ValueError, match=r"contracts\.acme\.plan: .pro.: allowed: a plan of cloud version 2: free, team"
    ):
        list(simulate_prices(app, text=NEW.replace("id: pro", "id: team"), file="new.yaml", period="2026-03"))
