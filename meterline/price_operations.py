"""Price books as code: check a file, see what it would change and for whom, apply it, and who applied what.

Owns that no version is stored which a contract in force could not be rated by.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import sqlalchemy as sa

from invoicing import store as stored
from meterline.output import Output, Table, Text
from meterline.system import System
from rating.book_changes import changes, concerned
from rating.books import Books, refuse_changed_version
from rating.contract_faults import contract_faults
from schemas.configuration import ConfigurationError, Fault
from schemas.contract import Contracts
from schemas.meter import Meter, parse_meters
from schemas.price_book import PriceBook, parse_price_book
from schemas.tenant import DEFAULT_TENANT
from stores.price_changes import changes_of, note_change


def validate_price_books(app: System, *, files: dict[str, str]) -> Iterator[Output]:
    """Check the texts of files against the meters in force; all faults at once. Nothing is stored."""
    yield validated(files, _meters(app))


def validated(files: dict[str, str], meters: dict[str, Meter] | None) -> Text:
    """What each file holds. Raises one ConfigurationError with the faults of all."""
    faults: list[Fault] = []
    lines = []
    for file, text in files.items():
        try:
            book = parse_price_book(text, file, meters)
        except ConfigurationError as error:
            faults += error.faults
        else:
            lines.append(f"{file}: {book}, digest {book.digest}")
    if faults:
        raise ConfigurationError(faults)
    return Text(text="\n".join(lines))


def meters_of(text: str, file: str) -> dict[str, Meter]:
    """Meters by slug. Raises ConfigurationError with all faults."""
    return {meter.slug: meter for meter in parse_meters(text, file)}


def plan_price_book(app: System, *, text: str, file: str) -> Iterator[Output]:
    """What applying the file would change, and which contracts it concerns from when. Nothing is stored."""
    book = parse_price_book(text, file, _meters(app))
    with app.database.connect() as connection:
        known = _versions(connection)
        contracts = _contracts(connection)
    _refuse(known, book, contracts, file)
    if any((other.book, other.version) == (book.book, book.version) for other in known):
        yield Text(text=f"{book}: stored already, digest {book.digest}; nothing to apply")
        return
    before = max((other for other in known if other.book == book.book), key=lambda each: each.version, default=None)
    yield Text(text=changes(before, book))
    yield Text(text=concerned(book, contracts))


def apply_price_book(app: System, *, text: str, file: str, by: str = "unknown") -> Iterator[Output]:
    """Store a price book's version, for ever, and write down who did."""
    book = parse_price_book(text, file, _meters(app))
    now = datetime.now(UTC)
    with app.database.begin() as connection:
        known = _versions(connection)
        _refuse(known, book, _contracts(connection), file)
        new = stored.apply_price_book(
            connection, DEFAULT_TENANT, book=book.book, version=book.version, digest=book.digest,
            body=book.canonical(), applied_at=now,
        )  # fmt: skip
        if new:
            who = by.strip() or "unknown"
            note_change(
                connection, DEFAULT_TENANT, book=book.book, version=book.version, digest=book.digest, by=who, at=now
            )
    yield Text(text=f"{book}: {'stored' if new else 'stored before'}, digest {book.digest}")


def diff_price_books(
    app: System, *, before: str, after: str, before_text: str | None = None, after_text: str | None = None
) -> Iterator[Output]:
    """The changes from one book to another: each a stored version `book@version`, or a file's name with its text."""
    with app.database.connect() as connection:
        known = _versions(connection)
    old, new = (_named(known, name, text) for name, text in ((before, before_text), (after, after_text)))
    yield Text(text=changes(old, new))


def price_history(app: System, *, book: str | None = None) -> Iterator[Output]:
    """Who applied which version, and when."""
    with app.database.connect() as connection:
        rows = changes_of(connection, DEFAULT_TENANT, book)
    yield Table(
        title=f"{len(rows)} changes" + (f" of {book}" if book else ""),
        columns=("when", "who", "book", "from", "to", "digest"),
        rows=[
            (row["applied_at"].astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"), row["applied_by"],
             row["book"], str(row["from_version"] or ""), str(row["to_version"]), row["digest"])
            for row in rows
        ],
    )  # fmt: skip


def stored_books(connection: sa.Connection) -> Books:
    """All applied versions."""
    return Books(_versions(connection))


def _meters(app: System) -> dict[str, Meter]:
    return {meter.slug: meter for meter in app.log.meters()}


def _versions(connection: sa.Connection) -> list[PriceBook]:
    return [PriceBook.from_canonical(row["body"]) for row in stored.price_books(connection, DEFAULT_TENANT)]


def _contracts(connection: sa.Connection) -> Contracts:
    known = stored.latest_contracts(connection, DEFAULT_TENANT)
    return Contracts.from_canonical(known.body) if known else Contracts(contracts=())


def _refuse(known: list[PriceBook], book: PriceBook, contracts: Contracts, file: str) -> None:
    """Raises ConfigurationError for another content of a stored version, and for contracts that would not fit."""
    refuse_changed_version(known, book, file)
    if any(other.digest == book.digest for other in known):
        return
    had = {(fault.key, fault.value) for fault in contract_faults(contracts, Books(known), file)} if known else set()
    faults = contract_faults(contracts, Books([*known, book]), file)
    if new := [fault for fault in faults if (fault.key, fault.value) not in had]:
        raise ConfigurationError(new)


def _named(known: list[PriceBook], name: str, text: str | None) -> PriceBook:
    if text is not None:
        return parse_price_book(text, name, None)
    book, _, version = name.rpartition("@")
    for other in known:
        if (other.book, str(other.version)) == (book, version):
            return other
    allowed = ", ".join(f"{other.book}@{other.version}" for other in known) or "(nothing is stored)"
    raise LookupError(f"no price book {name}; allowed: a file, or one of {allowed}")
