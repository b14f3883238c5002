"""`meterline rate`: prices tried on a file of usage, without a server and without stores."""

from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from schemas.configuration import ConfigurationError, Fault

if TYPE_CHECKING:
    from meterline.offline import Question

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_day = click.DateTime(["%Y-%m-%d"])
Read = TypeVar("Read")


@click.command("rate")
@click.option("--book", "books", type=_file, multiple=True, required=True, help="A price book, as YAML; or several.")
@click.option("--usage", type=_file, required=True, help="Usage: .ndjson, .csv or .parquet.")
@click.option("--from", "after", type=_day, required=True, metavar="DATE", help="Rate periods that end after this day,")
@click.option("--to", "through", type=_day, required=True, metavar="DATE", help="on this day at the latest.")
@click.option("--contracts", type=_file, help="Contracts, as YAML.")
@click.option("--meters", type=_file, help="Meters, as YAML; without, each adds up its quantities.")
@click.option("--plan", help="The plan of customers that have none; by default, the book's.")
@click.option("--prepaid", multiple=True, metavar="CUSTOMER=AMOUNT", help="Credits of a customer.")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@click.option("--explain", is_flag=True, help="How each amount came about; as CSV, slices instead of charges.")
def rate(
    books: tuple[Path, ...],
    usage: Path,
    after: datetime,
    through: datetime,
    contracts: Path | None,
    meters: Path | None,
    plan: str | None,
    prepaid: tuple[str, ...],
    form: str,
    explain: bool,
) -> None:
    """Rate a file of usage by price books, without any server.

    What would everybody pay? Billing periods that end on a day in (from, to] are rated. What of the usage is left out
    is told, and why.
    """
    from polars.exceptions import PolarsError

    from meterline.offline import rate_offline
    from meterline.offline_bills import billed
    from meterline.rate_text import as_csv, as_json, as_text

    question = _question(books, usage, (after.date(), through.date()), contracts, meters, plan, prepaid)
    try:
        answer = rate_offline(question)
        bills = billed(answer.rated.charges, answer.books)
    except ConfigurationError:
        raise
    except (LookupError, ValueError, ArithmeticError) as error:
        raise click.ClickException(str(error.args[0] if error.args else error)) from error
    except PolarsError as error:  # what follows its first line is an expression of ours
        why = f"a quantity or an amount needs more than 17 whole digits: {str(error).partition(chr(10))[0]}"
        raise click.ClickException(why) from error
    write = {"table": as_text, "json": as_json, "csv": as_csv}[form]
    click.echo(write(answer, bills, explain=explain), nl=False)
    if form == "csv":
        for note in answer.notes:
            click.echo(f"Note: {note}", err=True)


def _question(
    books: tuple[Path, ...],
    usage: Path,
    days: tuple[date, date],
    contracts: Path | None,
    meters: Path | None,
    plan: str | None,
    prepaid: tuple[str, ...],
) -> "Question":
    """What the files say. Raises one ConfigurationError with the faults of all."""
    faults: list[Fault] = []

    def tried(read: Callable[[Path], Read], file: Path) -> Read | None:
        try:
            return read(file)
        except ConfigurationError as error:
            faults.extend(error.faults)
            return None

    from meterline.offline import Question
    from meterline.usage_files import read_usage
    from schemas.contract import Contracts, parse_contracts
    from schemas.meter import parse_meters
    from schemas.price_book import parse_price_book

    if days[1] <= days[0]:
        faults.append(Fault("--to", "", str(days[1]), f"allowed: a day after --from, {days[0]}"))
    credits_ = []
    for given in prepaid:
        customer, equals, amount = given.rpartition("=")
        if not equals or not customer:
            faults.append(Fault("--prepaid", "", given, "allowed: CUSTOMER=AMOUNT, such as acme=50.00"))
        credits_.append((customer, amount))
    listed = tried(lambda file: parse_meters(_text(file), str(file)), meters) if meters else None
    known = {meter.slug: meter for meter in listed} if listed else None
    parsed = {str(file): tried(lambda each: parse_price_book(_text(each), str(each), known), file) for file in books}
    agreed = tried(lambda file: parse_contracts(_text(file), str(file)), contracts) if contracts else None
    used = tried(read_usage, usage)
    if faults or used is None:
        raise ConfigurationError(faults)
    return Question(
        books={file: book for file, book in parsed.items() if book},
        contracts=agreed or Contracts(contracts=()),
        contracts_file=str(contracts or ""),
        meters=listed,
        usage=used,
        usage_file=str(usage),
        after=days[0],
        through=days[1],
        plan=plan,
        prepaid=tuple(credits_),
    )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            [Fault(str(file), "", f"byte {error.start}: {error.reason}", "allowed: UTF-8")]
        ) from error
