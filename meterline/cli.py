"""The command line. A command finds the server of its data directory, or opens the stores itself.

A command imports what it runs when it runs: most are questions to a server, and loading the engines takes seconds.
"""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from meterline.archive_commands import archive_commands
from meterline.credit_note_commands import credit_note_commands
from meterline.directory import InUseError, server_of
from meterline.invoice_commands import invoice_commands
from meterline.key_commands import key_commands, listening_options
from meterline.ledger_commands import ledger_commands
from meterline.listening import Listening
from meterline.output import Failure, Output, decode
from meterline.price_commands import price_commands
from meterline.rate_command import rate
from meterline.revenue_commands import settlement_commands, wallet_commands
from meterline.terminal import print_error, render
from meterline.webhook_commands import outbox_commands, webhook_commands
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
        print_error(str(error))
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
    from meterline.server import serve as run_server

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
    from meterline.deployed import create_log

    made = create_log(_servers(), partitions=partitions, replication=replication, replace_lost_log=replace_lost_log)
    click.echo(made)


@cli.command()
@listening_options
def gateway(listening: Listening) -> None:
    """Run the HTTP gateway of a deployment until stopped. Run as many as you like."""
    from meterline.deployed import run_gateway

    sys.exit(run_gateway(_servers(), listening))


@cli.command()
@click.option("--name", envvar="METERLINE_WORKER", help="A name that no other worker has: it restarts at once.")
@click.option("--port", default=6066, show_default=True, help="The port of /metrics, /healthz and /readyz.")
def worker(name: str | None, port: int) -> None:
    """Run a worker of a deployment until stopped. Run up to one a partition; safe to kill at any moment."""
    from meterline.faust_worker import run_worker

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
@click.option(
    "--draft", "how", flag_value="draft", help="Make drafts, which follow new usage whenever this is repeated."
)
@click.option("--dry-run", "how", flag_value="preview", help="Only show what would be billed.")
@click.option("--grace-hours", type=int, metavar="HOURS", help="Drafts for so long after the month's end, then final.")
@click.option("--progressive", is_flag=True, help="While the month runs: bill usage that crossed a threshold.")
@click.option("--json", "as_json", is_flag=True, help="One invoice with its lines a line.")
def bill(data: Path, period: str, how: str | None, grace_hours: int | None, progressive: bool, as_json: bool) -> None:
    """Bill a month: cut the log, rate the usage, post invoices and adjustments. Safe to kill and repeat."""
    if progressive and grace_hours is not None:
        raise click.UsageError("--grace-hours: allowed: not with --progressive, which bills while the month runs")
    operation = "bill_progressively" if progressive else "bill"
    given = {name: value for name, value in (("how", how), ("grace_hours", grace_hours)) if value is not None}
    run(data, operation, period=period, as_json=as_json, **given)


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
            from meterline.audit import write_metrics

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


def run(data: Path, operation: str, into: Path | None = None, /, **parameters: Any) -> None:
    """Run an operation where the data is, and show what it yields. Ends the process with status 1 on a failure.

    With `into`, its answer is written to this file.
    """
    servers = servers_of(os.environ)
    if not servers and (server := server_of(data)):
        render(_remote(*server, operation, parameters), into)
        return
    from meterline.operations import outputs_of

    if servers:
        from meterline.system import connected

        with connected(servers) as system:
            render(outputs_of(system, operation, parameters), into)
        return
    from meterline.embedded import embedded

    with embedded(data) as app:
        render(outputs_of(app, operation, parameters), into)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            [Fault(str(file), "", f"byte {error.start}: {error.reason}", "allowed: UTF-8")]
        ) from error


def _publish(*, once: bool, partitions: int, replication: int) -> None:
    from meterline.publisher import run_publisher

    logging.getLogger("meterline").setLevel(logging.INFO)
    sys.exit(run_publisher(_servers(), once=once, partitions=partitions, replication=replication))


cli.add_command(key_commands(run, data_option))
cli.add_command(webhook_commands(run, data_option))
cli.add_command(outbox_commands(run, data_option, _publish))
cli.add_command(price_commands(run, data_option, _text))
cli.add_command(ledger_commands(run, data_option, _text))
cli.add_command(archive_commands(run, data_option))
cli.add_command(wallet_commands(run, data_option))
for command in settlement_commands(run, data_option, _text):
    cli.add_command(command)
cli.add_command(credit_note_commands(run, data_option))
cli.add_command(rate)
for group in invoice_commands(run, data_option, _text):
    cli.add_command(group)


def _servers() -> Servers:
    servers = servers_of(os.environ)
    if servers is None:
        allowed = "allowed: METERLINE_KAFKA, METERLINE_CLICKHOUSE and METERLINE_POSTGRES, for a deployment"
        raise ConfigurationError([Fault("environment", "METERLINE_KAFKA", "not set", allowed)])
    return servers


def _remote(url: str, key: str | None, operation: str, parameters: dict[str, Any]) -> Iterator[Output]:
    import httpx

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
