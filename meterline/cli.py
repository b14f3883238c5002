"""The command line. A command finds the server of its data directory, or opens the stores itself."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx

from meterline.audit import write_metrics
from meterline.deployed import create_log, run_gateway, run_worker
from meterline.embedded import InUseError, embedded, server_of
from meterline.key_commands import key_commands, listening_options
from meterline.operations import outputs_of
from meterline.output import Failure, Output, decode
from meterline.revenue_commands import add_revenue_commands
from meterline.server import Listening
from meterline.server import serve as run_server
from meterline.system import connected
from meterline.terminal import errors, render
from schemas.configuration import ConfigurationError, Fault
from stores.servers import Servers, servers_of

data_option = click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), default=Path("data"), envvar="METERLINE_DATA",
    show_default=True, help="The data directory.",
)  # fmt: skip
file_argument = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
period_option = click.option("--period", required=True, metavar="YYYY-MM", help="The month.")


def main() -> None:
    """Run the command line; what the user can mend ends with a message and status 1."""
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (ConfigurationError, InUseError, OSError) as error:
        errors.print(str(error), style="red", markup=False, highlight=False)
        sys.exit(1)
    except click.Abort:
        sys.exit(130)


@click.group()
@click.option("-v", "--verbose", is_flag=True, help="Log what happens, one line a batch.")
def cli(verbose: bool) -> None:
    """Meterline: usage events in, invoices in a balanced double-entry ledger out."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )


@cli.command()
@data_option
@listening_options
@click.option("--meters", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The meters, as YAML.")
def serve(data: Path, listening: Listening, meters: Path | None) -> None:
    """Run the gateway and the aggregation until stopped. Safe to kill at any moment."""
    logging.getLogger("meterline").setLevel(logging.INFO)
    sys.exit(run_server(data, listening, (_text(meters), str(meters)) if meters else None))


@cli.group()
def topics() -> None:
    """The log of a deployment, a Kafka topic."""


@topics.command("create")
@click.option("--partitions", default=8, show_default=True, help="How many; a log keeps the number for ever.")
@click.option("--replication", default=1, show_default=True, help="On how many brokers each record is.")
@click.option("--replace-lost-log", is_flag=True, help="The topic was deleted: begin a new log, keep the usage.")
def create_topics(partitions: int, replication: int, replace_lost_log: bool) -> None:
    """Make the topic of the log, with the broker's time for its records. Safe to repeat."""
    made = create_log(_servers(), partitions=partitions, replication=replication, replace_lost_log=replace_lost_log)
    click.echo(made)


@cli.command()
@listening_options
def gateway(listening: Listening) -> None:
    """Run the HTTP gateway of a deployment until stopped. Run as many as you like."""
    sys.exit(run_gateway(_servers(), listening))


@cli.command()
@click.option("--name", envvar="METERLINE_WORKER", help="A name that no other worker has: it restarts at once.")
@click.option("--port", default=6066, show_default=True, help="The port of /metrics, /healthz and /readyz.")
def worker(name: str | None, port: int) -> None:
    """Run a worker of a deployment until stopped. Run up to one a partition; safe to kill at any moment."""
    logging.getLogger().setLevel(logging.INFO)
    run_worker(_servers(), name, port)


@cli.command("import")
@data_option
@file_argument
def import_file(data: Path, file: Path) -> None:
    """Import usage events from a FILE with one CloudEvents JSON object a line. Safe to repeat."""
    run(data, "import_usage", path=str(file.resolve()))


@cli.command()
@data_option
@period_option
def bill(data: Path, period: str) -> None:
    """Bill a month: cut the log, rate the usage, post invoices and adjustments. Safe to kill and repeat."""
    run(data, "bill", period=period)


@cli.command()
@data_option
@period_option
def usage(data: Path, period: str) -> None:
    """Show the usage of a month by meter and subject."""
    run(data, "show_usage", period=period)


@cli.command()
@data_option
@click.option("--month", metavar="YYYY-MM", help="Recount only the rollups of this month, instead of all.")
@click.option("--metrics-file", type=click.Path(dir_okay=False, path_type=Path), help="Write metrics of it.")
def audit(data: Path, month: str | None, metrics_file: Path | None) -> None:
    """Check the promises on the stored data: nothing lost, nothing twice, rollups what events say, books balanced."""
    if metrics_file and not servers_of(os.environ) and (server := server_of(data)):
        raise click.UsageError(f"the server of {data} has the result at {server[0]}/metrics")
    try:
        run(data, "audit", month=month)
    finally:
        if metrics_file:
            write_metrics(metrics_file)


@cli.group()
def rollups() -> None:
    """Usage by meter, subject, dimensions and hour."""


@rollups.command("rebuild")
@data_option
@click.option("--month", required=True, metavar="YYYY-MM", help="The month of the usage.")
def rebuild_rollups(data: Path, month: str) -> None:
    """Make a month's rollups anew from the stored events. Workers go on meanwhile; safe to kill and repeat."""
    run(data, "rebuild_rollups", month=month)


@cli.group()
def meters() -> None:
    """The meters in force."""


@meters.command("list")
@data_option
@click.option("--json", "as_json", is_flag=True, help="One definition a line, of those in force.")
def list_meters(data: Path, as_json: bool) -> None:
    """List the meters."""
    run(data, "list_meters", as_json=as_json)


@meters.command("backfill")
@data_option
@click.argument("slug")
@click.option("--from", "start", metavar="INSTANT", help="Only events from this hour on, such as 2026-01-31.")
@click.option("--to", "end", metavar="INSTANT", help="Only events before this hour.")
def backfill_meter(data: Path, slug: str, start: str | None, end: str | None) -> None:
    """Let a meter count the events that were stored before it. Workers go on meanwhile; safe to kill and repeat."""
    run(data, "backfill_meter", slug=slug, start=start, end=end)


@meters.command("apply")
@data_option
@file_argument
def apply_meters(data: Path, file: Path) -> None:
    """Put the meters of a YAML FILE in force, from here on in the log."""
    run(data, "apply_meters", text=_text(file), file=str(file))


@cli.group()
def price() -> None:
    """Price books."""


@price.command("apply")
@data_option
@file_argument
def apply_price_book(data: Path, file: Path) -> None:
    """Store the version of a price book that a YAML FILE holds."""
    run(data, "apply_price_book", text=_text(file), file=str(file))


@cli.group()
def contracts() -> None:
    """Who pays for which subjects."""


@contracts.command("apply")
@data_option
@file_argument
def apply_contracts(data: Path, file: Path) -> None:
    """Store the contracts that a YAML FILE holds."""
    run(data, "apply_contracts", text=_text(file), file=str(file))


@cli.group()
def rejections() -> None:
    """Lines that are no usage events."""


@rejections.command("list")
@data_option
@click.option("--reason", help="Only of this reason.")
@click.option("--limit", default=100, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with the whole rejected line.")
def list_rejections(data: Path, reason: str | None, limit: int, as_json: bool) -> None:
    """List the open rejections with their reasons and positions."""
    run(data, "list_rejections", reason=reason, limit=limit, as_json=as_json)


@rejections.command("replay")
@data_option
@click.option("--reason", help="Only of this reason.")
@click.option("--repaired", type=click.File(), help="Lines as `list --json` prints them, with `raw` repaired.")
def replay_rejections(data: Path, reason: str | None, repaired: Any) -> None:
    """Put rejected lines into the log again, as they are or repaired."""
    run(data, "replay_rejections", reason=reason, repaired=repaired.read() if repaired else None)


@cli.group()
def invoices() -> None:
    """Invoices."""


@invoices.command("list")
@data_option
@period_option
def list_invoices(data: Path, period: str) -> None:
    """List a month's invoices."""
    run(data, "list_invoices", period=period)


@invoices.command("show")
@data_option
@click.argument("number")
def show_invoice(data: Path, number: str) -> None:
    """Print an invoice with the explanation of each line."""
    run(data, "show_invoice", number=number)


@cli.group()
def ledger() -> None:
    """The double-entry ledger."""


@ledger.command("balance")
@data_option
def trial_balance(data: Path) -> None:
    """Print the trial balance."""
    run(data, "trial_balance")


def run(data: Path, operation: str, **parameters: Any) -> None:
    """Run an operation where the data is, and show what it yields. Ends the process with status 1 on a failure."""
    servers = servers_of(os.environ)
    if servers:
        with connected(servers) as system:
            render(outputs_of(system, operation, parameters))
        return
    server = server_of(data)
    if server:
        render(_remote(*server, operation, parameters))
        return
    with embedded(data) as app:
        render(outputs_of(app, operation, parameters))


cli.add_command(key_commands(run, data_option))


def _servers() -> Servers:
    servers = servers_of(os.environ)
    if servers is None:
        allowed = "allowed: METERLINE_KAFKA, METERLINE_CLICKHOUSE and METERLINE_POSTGRES, for a deployment"
        raise ConfigurationError([Fault("environment", "METERLINE_KAFKA", "not set", allowed)])
    return servers


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            [Fault(str(file), "", f"byte {error.start}: {error.reason}", "allowed: UTF-8")]
        ) from error


def _remote(url: str, key: str | None, operation: str, parameters: dict[str, Any]) -> Iterator[Output]:
    target = f"{url}/api/v1/operations/{operation}"
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.stream("POST", target, json=parameters, headers=headers, timeout=None) as response:  # noqa: S113  a billing run takes its time
            response.raise_for_status()
            for line in response.iter_lines():
                yield decode(line)
    except httpx.HTTPError as error:
        yield Failure(
            message=f"the server at {url} did not finish the request: {error}; look at its log, then try again"
        )


add_revenue_commands(cli, ledger, run, _text, data_option)
