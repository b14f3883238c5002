"""Real stores for the tests: PostgreSQL and ClickHouse from their wheels, fresh for each test."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings

os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp())  # read by platformdirs; must be private
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each of the processes that tests start would compile our code anew

from schemas.tables import TABLES
from stores.clickhouse import Client, open_embedded
from stores.postgres import embedded_server, engine_for, migrate

settings.register_profile("meterline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("meterline")


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server, whose database `template` is migrated to the newest schema."""
    with embedded_server(tmp_path_factory.mktemp("postgres")) as url:
        admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(sa.text("CREATE DATABASE template"))
        template = engine_for(str(sa.make_url(url).set(database="template").render_as_string(hide_password=False)))
        migrate(template)
        template.dispose()
        admin.dispose()
        yield url


@contextmanager
def fresh_database(postgres_url: str) -> Iterator[sa.Engine]:
    """A database with the newest schema, dropped at the end."""
    admin = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        number = connection.execute(sa.text("SELECT count(*) FROM pg_database")).scalar_one()
        name = f"test_{number}_{os.urandom(4).hex()}"
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE template"))
    engine = engine_for(sa.make_url(postgres_url).set(database=name).render_as_string(hide_password=False))
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def database(postgres_url: str) -> Iterator[sa.Engine]:
    """A fresh database with the newest schema."""
    with fresh_database(postgres_url) as engine:
        yield engine


@pytest.fixture(scope="module")
def shared_database(postgres_url: str) -> Iterator[sa.Engine]:
    """A database with the newest schema for the tests of a module, which leave what they find."""
    with fresh_database(postgres_url) as engine:
        yield engine


@pytest.fixture(scope="session")
def _engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clickhouse")  # chdb takes one path a process


@pytest.fixture
def clickhouse(_engine: Path) -> Iterator[Client]:
    """The ClickHouse engine with our tables, all of them empty."""
    client = open_embedded(_engine)
    for table in TABLES:
        client.command(f"DROP TABLE {table.name} SYNC")
        client.command(table.ddl())
    yield client
    client.close()
