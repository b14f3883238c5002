"""The part of the command line for revenue, wallets and settlements."""

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


def add_revenue_commands(
    cli: click.Group,
    ledger: click.Group,
    run: Callable[..., None],
    text_of: Callable[[Path], str],
    data_option: Callable[..., Any],
) -> None:
    """Add the commands; `run` runs an operation where the data is, `text_of` reads a file."""

    @ledger.command("recognise")
    @data_option
    @click.option("--through", required=True, metavar="DATE", help="The last day of the months to recognise.")
    def recognise(data: Path, through: str) -> None:
        """Recognise what was billed in advance and has been delivered. Safe to repeat."""
        run(data, "recognise_revenue", through=through)

    @cli.command("reconcile")
    @data_option
    @click.argument("file", type=_file)
    @click.option("--payout", required=True, metavar="ID", help="The payout that the rows are of.")
    @click.option("--mapping", type=_file, help="A YAML file that says what the columns are; Stripe's are known.")
    def reconcile(data: Path, file: Path, payout: str, mapping: Path | None) -> None:
        """Match a settlement FILE with the books, and post what matches. Safe to repeat."""
        columns = {"mapping": text_of(mapping), "mapping_file": str(mapping)} if mapping else {}
        run(data, "reconcile_file", text=text_of(file), file=str(file), payout=payout, **columns)

    cli.add_command(_wallets(run, data_option))
    cli.add_command(_settlements(run, data_option))


def _wallets(run: Callable[..., None], data_option: Callable[..., Any]) -> click.Group:
    @click.group()
    def wallets() -> None:
        """Prepaid credits of customers."""

    @wallets.command("top-up")
    @data_option
    @click.option("--customer", required=True)
    @click.option("--currency", required=True)
    @click.option("--amount", required=True, help="In units of the currency, such as 500.00.")
    @click.option("--reference", required=True, help="Of the payment or the decision: it is put in once.")
    @click.option("--promotional", is_flag=True, help="The credits cost nothing.")
    @click.option("--priority", default=50, show_default=True, help="0 to 100; the lower, the earlier it is burned.")
    @click.option("--expires-at", metavar="INSTANT", help="From then on it is not burned.")
    @click.option("--invoiced", is_flag=True, help="An invoice asks for the price, not the gateway.")
    def top_up(data: Path, **terms: Any) -> None:
        """Put credits into a wallet. Safe to repeat."""
        run(data, "top_up_wallet", **terms)

    @wallets.command("list")
    @data_option
    def list_all(data: Path) -> None:
        """List the wallets, with what can be burned now."""
        run(data, "list_wallets")

    @wallets.command("show")
    @data_option
    @click.argument("customer")
    @click.option("--at", metavar="INSTANT", help="As it stood then.")
    def show(data: Path, customer: str, at: str | None) -> None:
        """Show a customer's lots in the order of burning."""
        run(data, "show_wallet", customer=customer, at=at)

    @wallets.command("expire")
    @data_option
    @click.option("--at", metavar="INSTANT", help="What has expired by then; now, if not given.")
    def expire(data: Path, at: str | None) -> None:
        """Take away expired credits and post them as breakage. Safe to repeat."""
        run(data, "expire_credits", at=at)

    return wallets


def _settlements(run: Callable[..., None], data_option: Callable[..., Any]) -> click.Group:
    @click.group()
    def settlements() -> None:
        """What was found in settlement files."""

    @settlements.command("flags")
    @data_option
    @click.option("--payout", metavar="ID", help="Only of this payout.")
    def flags(data: Path, payout: str | None) -> None:
        """List what did not match and nobody has looked at."""
        run(data, "list_flags", payout=payout)

    @settlements.command("resolve")
    @data_option
    @click.argument("match_id", metavar="ID")
    @click.option("--note", required=True, help="What came of it.")
    @click.option("--who", default=getpass.getuser, help="Who says so; you, if not given.")
    def resolve(data: Path, match_id: str, note: str, who: str) -> None:
        """Resolve a flag, with a note."""
        run(data, "resolve_flag", match_id=match_id, who=who, note=note)

    return settlements
