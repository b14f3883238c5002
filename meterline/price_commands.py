"""The part of the command line that keeps price books as code."""

import getpass
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from stores.servers import servers_of

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


def price_commands(
    run: Callable[..., None], data_option: Callable[..., Any], read: Callable[[Path], str]
) -> click.Group:
    """The commands of price books; `run` runs an operation where the data is, `read` gives a file's text."""

    @click.group()
    def price() -> None:
        """Price books."""

    @price.command("validate")
    @data_option
    @click.argument("files", type=_file, nargs=-1, required=True)
    @click.option("--meters", type=_file, help="The meters, as YAML; without, those in force where there is data.")
    def validate(data: Path, files: tuple[Path, ...], meters: Path | None) -> None:
        """Check price books in YAML FILES and tell all faults. Stores nothing, and needs no stores."""
        texts = {str(file): read(file) for file in files}
        if meters is None and (servers_of(os.environ) or data.exists()):
            run(data, "validate_price_books", files=texts)
        else:
            from meterline.price_operations import meters_of, validated

            known = meters_of(read(meters), str(meters)) if meters else None
            click.echo(validated(texts, known).text)

    @price.command("plan")
    @data_option
    @click.argument("file", type=_file)
    def plan(data: Path, file: Path) -> None:
        """Show what applying a FILE would change, and for how many contracts from when."""
        run(data, "plan_price_book", text=read(file), file=str(file))

    @price.command("apply")
    @data_option
    @click.argument("file", type=_file)
    @click.option("--by", help="Who applies it; by default, the user of the system.")
    def apply(data: Path, file: Path, by: str | None) -> None:
        """Store the version of a price book that a YAML FILE holds, for ever."""
        run(data, "apply_price_book", text=read(file), file=str(file), by=by or _user())

    @price.command("diff")
    @data_option
    @click.argument("before")
    @click.argument("after")
    def diff(data: Path, before: str, after: str) -> None:
        """Show what changes from BEFORE to AFTER: each a file, or a stored version as cloud@3."""
        texts = [read(Path(name)) if Path(name).is_file() else None for name in (before, after)]
        run(data, "diff_price_books", before=before, after=after, before_text=texts[0], after_text=texts[1])

    @price.command("history")
    @data_option
    @click.argument("book", required=False)
    def history(data: Path, book: str | None) -> None:
        """List who applied which version of a BOOK, or of all, and when."""
        run(data, "price_history", book=book)

    @price.command("schema")
    @click.option("--contracts", "of_contracts", is_flag=True, help="Of contracts, instead of price books.")
    def schema(of_contracts: bool) -> None:
        """Print the JSON Schema of a price book's file, for editors."""
        from schemas.editor import contracts_schema, price_book_schema

        click.echo(contracts_schema() if of_contracts else price_book_schema(), nl=False)

    price.add_command(_simulation(run, data_option, read))
    return price


def _simulation(
    run: Callable[..., None], data_option: Callable[..., Any], read: Callable[[Path], str]
) -> click.Command:
    @click.command("simulate")
    @data_option
    @click.argument("file", type=_file)
    @click.option("--period", required=True, metavar="YYYY-MM", help="The month in which billing periods end.")
    @click.option("--contracts", type=_file, help="Contracts for the new prices, as YAML; by default, those stored.")
    @click.option("--limit", default=20, show_default=True, help="How many customers to show.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object.")
    def simulate(data: Path, file: Path, period: str, contracts: Path | None, limit: int, as_json: bool) -> None:
        """Rate a past month by a FILE and show what each customer would have paid more or less. Stores nothing."""
        agreed = {"contracts_text": read(contracts), "contracts_file": str(contracts)} if contracts else {}
        run(
            data,
            "simulate_prices",
            text=read(file),
            file=str(file),
            period=period,
            limit=limit,
            as_json=as_json,
            **agreed,
        )

    return simulate


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"
