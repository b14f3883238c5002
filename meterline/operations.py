"""What can be asked of a running Meterline: each operation is a function over the open stores that yields outputs.

The command line calls them in its own process, or, where a server has the data directory, through that server.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import sqlalchemy as sa
from pydantic import ConfigDict, ValidationError, create_model

from aggregation.store import usage_between
from ingest.app import import_file
from ingest.store import Rejected, append_again, open_rejections
from invoicing import store as books
from meterline.archive import create_archive
from meterline.audit import audit
from meterline.backfill import backfill_meter
from meterline.billing import bill
from meterline.credit_notes import CREDIT_NOTE_OPERATIONS
from meterline.invoice_life import INVOICE_OPERATIONS
from meterline.keys import create_key, limit_tenant, list_keys, revoke_key
from meterline.ledger import (
    close_books,
    list_entries,
    post_documents,
    reopen_books,
    reverse_entry,
    trial_balance,
    verify_ledger,
)
from meterline.ledger_exports import export_ledger
from meterline.manual_invoices import create_invoices, delete_invoice
from meterline.output import Failure, Output, Progress, Table, Text
from meterline.period import Period
from meterline.price_operations import (
    apply_price_book,
    diff_price_books,
    plan_price_book,
    price_history,
    stored_books,
    validate_price_books,
)
from meterline.price_simulation import simulate_prices
from meterline.progressive import bill_progressively
from meterline.rendering import apply_seller, show_invoice
from meterline.revenue import REVENUE_OPERATIONS
from meterline.rollups import rebuild_rollups, whole_rollups
from meterline.settlements import SETTLEMENT_OPERATIONS
from meterline.system import System, configure_meters, wait_until_stored
from meterline.tables import meter_table
from meterline.wallets import WALLET_OPERATIONS
from meterline.webhooks import WEBHOOK_OPERATIONS
from rating.contract_faults import contract_faults
from schemas.configuration import ConfigurationError, faults_of
from schemas.contract import parse_contracts
from schemas.log import Flush
from schemas.tenant import DEFAULT_TENANT


def import_usage(app: System, *, path: str) -> Iterator[Output]:
    """Import a file of usage events, one CloudEvents JSON object a line, and wait until the rollups hold them."""
    file = Path(path)
    size = file.stat().st_size
    appended = 0
    for lines, done in import_file(file, app.log.append, app.log.partitions):
        appended = lines
        yield Progress(step="import", done=done, total=size)
    yield from catch_up(app)
    yield Text(text=f"{appended:,} lines of {file.name} are in the log and in the rollups")


def catch_up(app: System) -> Iterator[Output]:
    """Wait until everything in the log is in the rollups."""
    yield from wait_until_stored(app, app.log.punctuate(Flush()), "aggregate")


def apply_meters(app: System, *, text: str, file: str) -> Iterator[Output]:
    """Put the meters of a YAML text in force, from here on in the log."""
    version = configure_meters(app.log, text, file)
    yield from catch_up(app)
    yield Text(text=f"{file}: in force as version {version} of the configuration")


def list_meters(app: System, *, as_json: bool) -> Iterator[Output]:
    """The meters in force, and those that were withdrawn and whose usage stays."""
    in_force = app.log.newest_config().meters
    if as_json:
        yield Text(text="\n".join(orjson.dumps(meter.written()).decode() for meter in in_force))
        return
    slugs = {meter.slug for meter in in_force}
    yield meter_table(in_force, [meter for meter in app.log.meters() if meter.slug not in slugs])


def apply_contracts(app: System, *, text: str, file: str) -> Iterator[Output]:
    """Store who pays for which subjects, on which plan."""
    contracts = parse_contracts(text, file)
    with app.database.begin() as connection:
        stored = stored_books(connection)
        meters = {meter.slug: meter for meter in app.log.meters()}
        if stored.names and (faults := contract_faults(contracts, stored, file, meters)):
            raise ConfigurationError(faults)
        new = books.apply_contracts(
            connection,
            DEFAULT_TENANT,
            digest=contracts.digest,
            body=contracts.canonical(),
            applied_at=datetime.now(UTC),
        )
    state = "stored" if new else "stored before"
    yield Text(text=f"{len(contracts.contracts)} contracts: {state}, digest {contracts.digest}")


def show_usage(app: System, *, period: str) -> Iterator[Output]:
    """The usage of a period by meter and subject, with all that has arrived by now."""
    month = Period.parse(period)
    with whole_rollups(app.database):
        usage = usage_between(app.clickhouse, DEFAULT_TENANT, app.log.meters(), month.start, month.end, cut=2**32 - 1)
    quantity = pl.coalesce("quantity", pl.col("uniques").list.len().cast(pl.Decimal(38, 9)))
    rows = usage.select("meter", "subject", quantity.alias("quantity")).sort("meter", "subject").rows()
    yield Table(
        title=f"Usage of {period}",
        columns=("meter", "subject", "quantity"),
        rows=[(meter, subject, f"{quantity.normalize():,f}") for meter, subject, quantity in rows],
        numbers=("quantity",),
    )


def list_rejections(app: System, *, reason: str | None, limit: int, as_json: bool) -> Iterator[Output]:
    """The lines that are no usage events and were not put into the log again, oldest first."""
    rejected = open_rejections(app.clickhouse, app.database, reason)
    if as_json:
        yield Text(text="\n".join(orjson.dumps(row.to_json()).decode() for row in rejected[:limit]))
        return
    yield Table(
        title=f"{len(rejected):,} open rejections" + (f", the first {limit}" if len(rejected) > limit else ""),
        columns=("position", "reason", "detail", "line"),
        rows=[
            (row.position, row.reason, row.detail, row.raw[:60].decode(errors="replace")) for row in rejected[:limit]
        ],
    )


def replay_rejections(app: System, *, reason: str | None, repaired: str | None) -> Iterator[Output]:
    """Put rejected lines into the log again: as they are, or as a repaired list has them."""
    rows = open_rejections(app.clickhouse, app.database, reason)
    if repaired is not None:
        known = {row.position for row in rows}
        listed = [Rejected.from_json(line) for line in repaired.split("\n") if line.strip()]
        rows = [row for row in listed if row.position in known]
        if unknown := sorted({row.position for row in listed} - known):
            yield Text(text=f"no open rejection at {', '.join(unknown)}; skipped")
    append_again(app.log, app.database, rows)
    yield from catch_up(app)
    still = {row.position for row in open_rejections(app.clickhouse, app.database, None)}
    yield Text(text=f"{len(rows):,} lines were put into the log again; {len(still):,} rejections are open now")


OPERATIONS: dict[str, Callable[..., Iterator[Output]]] = {
    operation.__name__: operation
    for operation in (
        import_usage, list_meters, apply_meters, backfill_meter, apply_price_book, apply_contracts, apply_seller,
        show_usage, bill, bill_progressively,
        list_rejections, replay_rejections, show_invoice, *INVOICE_OPERATIONS, trial_balance, audit, rebuild_rollups,
        create_key, list_keys, revoke_key, limit_tenant, validate_price_books, plan_price_book, diff_price_books,
        price_history, simulate_prices, list_entries, post_documents, reverse_entry, verify_ledger, close_books,
        reopen_books, export_ledger, create_archive, create_invoices, delete_invoice, *WEBHOOK_OPERATIONS,
        *REVENUE_OPERATIONS, *WALLET_OPERATIONS, *SETTLEMENT_OPERATIONS, *CREDIT_NOTE_OPERATIONS,
    )
}  # fmt: skip
LOCAL_OPERATIONS = {"import_usage", "create_archive"}
"""What reads or writes this machine's files: for nobody who could not do so anyhow."""


def checked_parameters(operation: str, parameters: Any) -> dict[str, Any]:
    """The parameters of an operation, each of its type. Raises ValueError that says what is wrong with which."""
    given = list(signature(OPERATIONS[operation]).parameters.values())[1:]
    fields = {each.name: (each.annotation, ... if each.default is Parameter.empty else each.default) for each in given}
    model = create_model(operation, __config__=ConfigDict(extra="forbid", strict=True), **fields)  # type: ignore[call-overload]
    try:
        checked = model.model_validate(parameters)
    except ValidationError as error:
        raise ValueError("; ".join(f"{fault.key}: {fault.allowed}" for fault in faults_of(error, operation))) from None
    return {name: getattr(checked, name) for name in fields}


def outputs_of(app: System, operation: str, parameters: dict[str, Any]) -> Iterator[Output]:
    """What an operation yields; what its caller can mend ends it with a Failure."""
    try:
        yield from OPERATIONS[operation](app, **parameters)
    except (LookupError, ValueError, ArithmeticError, OSError, RuntimeError) as error:
        yield Failure(message=str(error))
    except (sa.exc.DataError, sa.exc.IntegrityError) as error:
        # a text that PostgreSQL has no place for, such as one with a NUL; a rule of the books, such as a closed period
        yield Failure(message=str(error.orig).splitlines()[0])
