"""What holds for a customer at an instant: the price book's version, its plan with the contract over it, and the rest.

Owns that one function says it, and another at which instants it may say something else. Days are those of the
contract's time zone and begin at its midnight. Core.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TypeVar
from zoneinfo import ZoneInfo

from rating.books import Books, local_midnight
from schemas.charges import Commitment, Discount
from schemas.contract import Amendment, Contract, Contracts
from schemas.plan import Cycle, Plan
from schemas.price_book import PriceBook

_UTC = ZoneInfo("UTC")
_LONG_AGO = date(1, 1, 1)  # a Monday, and the first day of a year: periods counted from it are the calendar's

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for a customer at an instant. Plans are shared: compare them by identity."""

    book: PriceBook
    """In the customer's currency. Its digest is that of the version as it was applied."""
    plan: Plan
    """With the contract's overrides; the same object for all who have the same version, currency and overrides."""
    contract: Contract | None
    """None for a subject on the default plan."""
    zone: ZoneInfo
    cycle: Cycle
    anchor: date
    """Where anniversaries are counted from: the first day of the contract."""
    anchor_day: int | None
    trial: bool
    starts_at: datetime | None
    ends_at: datetime | None
    discounts: tuple[Discount, ...]
    """The contract's, as are the next three. Those of the plan stand in the plan."""
    minimum_spend: Decimal | None
    maximum_spend: Decimal | None
    commitment: Commitment | None

    @property
    def digest(self) -> str:
        """That of the price book's version, as it was applied."""
        return self.book.digest

    @property
    def currency(self) -> str:
        """What is paid in."""
        return self.book.currency


def terms_as_of(customer: str, instant: datetime, books: Books, contracts: Contracts) -> Terms | None:
    """What holds for a customer at an instant: (1) the book's version, (2) its plan, (3) the contract over it.

    None when nothing does: the customer's contract has not begun or has ended, or there is no contract, and no book
    with a default plan is in force. A name without a contract is a subject on the default plan.

    (1) comes first, because the plan is the version's; (3) comes last: the contract, then each amendment whose day has
    come, in order. What none of them names is the plan's.

    Raises LookupError when a contract names a book, version or plan that is not there, or no version is in force yet,
    and ValueError where an override does not fit its charge or the book has no prices in the contract's currency.
    """
    contract = contracts.of(customer)
    if contract is None:
        return default_terms(instant, books)
    if not starts_at(contract) <= instant < (ends_at(contract) or _NEVER):
        return None
    come = amended(contract, instant)
    # 1. version
    version = version_as_of(contract, instant, books)
    if version is None:
        raise LookupError(
            f"contract of {customer}: no version of its price book is in force at {instant.isoformat()}; allowed: one"
            " that holds from the contract's first billed period on, by effective_at or existing_customers_at"
        )
    book = books.in_currency(version, contract.currency or version.currency)
    # 2. plan
    plan = books.plan(book, plan_as_of(contract, instant), [contract.layer, *(each.layer for each in come)])
    # 3. contract
    trial_ends_at = _trial_ends_at(contract, books)
    return Terms(
        book=book,
        plan=plan,
        contract=contract,
        zone=contract.zone,
        cycle=contract.cycle or plan.cycle,
        anchor=contract.starts_on,
        anchor_day=contract.anchor_day,
        trial=trial_ends_at is not None and instant < trial_ends_at,
        starts_at=starts_at(contract),
        ends_at=ends_at(contract),
        discounts=_newest(contract.discounts, [each.discounts for each in come]) or (),
        minimum_spend=_newest(contract.minimum_spend, [each.minimum_spend for each in come]),
        maximum_spend=_newest(contract.maximum_spend, [each.maximum_spend for each in come]),
        commitment=_newest(contract.commitment, [each.commitment for each in come]),
    )


def alike(contract: Contract) -> Hashable:
    """Contracts that give the same have the same terms at every instant, apart from `Terms.contract` itself.

    So a million contracts are rated by as many calls of `terms_as_of` as there are kinds of them.
    """
    own = any((contract.amendments, contract.layer, contract.discounts, contract.commitment))
    return contract.customer if own else (
        contract.book, contract.plan, contract.starts_on, contract.ends_on, contract.currency, contract.time_zone,
        contract.cycle, contract.anchor_day, contract.trial_days, contract.price_version, contract.minimum_spend,
        contract.maximum_spend,
    )  # fmt: skip


def amended(contract: Contract, instant: datetime) -> tuple[Amendment, ...]:
    """The amendments whose day has come."""
    return tuple(each for each in contract.amendments if local_midnight(each.on, contract.zone) <= instant)


def version_as_of(contract: Contract, instant: datetime, books: Books) -> PriceBook | None:
    """The version that holds for a contract, in the book's own currency; None when none is in force yet."""
    name = books.named(contract.book)
    pin = _newest(contract.price_version, [each.price_version for each in amended(contract, instant)])
    if pin is not None:
        return books.version(name, pin)
    return books.schedule(name, contract.zone, contract.starts_on).at(instant)


def plan_as_of(contract: Contract, instant: datetime) -> str:
    """The id of the plan that the contract names."""
    plan = _newest(contract.plan, [each.plan for each in amended(contract, instant)])
    assert plan is not None, "a contract names a plan"
    return plan


def starts_at(contract: Contract) -> datetime:
    """When it begins, in UTC."""
    return local_midnight(contract.starts_on, contract.zone)


def default_terms(instant: datetime, books: Books) -> Terms | None:
    """What holds at an instant for every subject without a contract: an existing customer, in UTC, on a default plan.

    None when no book in force has a default plan. Raises ValueError when several have one.
    """
    in_force = [books.schedule(name, _UTC, None).at(instant) for name in books.names]
    offered = [book for book in in_force if book is not None and book.default_plan is not None]
    if len(offered) > 1:
        raise ValueError(f"several price books have a default plan: {', '.join(str(book) for book in offered)}")
    if not offered:
        return None
    book = books.in_currency(offered[0], offered[0].currency)
    assert book.default_plan is not None
    plan = books.plan(book, book.default_plan, ())
    return Terms(
        book=book, plan=plan, contract=None, zone=_UTC, cycle=plan.cycle, anchor=_LONG_AGO, anchor_day=None,
        trial=False, starts_at=None, ends_at=None, discounts=(), minimum_spend=None, maximum_spend=None,
        commitment=None,
    )  # fmt: skip


def change_instants(contract: Contract | None, books: Books, start: datetime, end: datetime) -> list[datetime]:
    """The instants strictly between start and end, sorted, at which terms may change; None: of the default plan.

    Between two of them `terms_as_of` says the same: the contract begins, ends, leaves its trial or is amended, and
    versions of its book begin to hold. Times are UTC.
    """
    if contract is None:
        found = {at for name in books.names for at in books.schedule(name, _UTC, None).begins}
        return sorted(at for at in found if start < at < end)
    pins = [each.on for each in contract.amendments if each.price_version is not None]
    pinned_at = starts_at(contract) if contract.price_version is not None else None
    if pinned_at is None and pins:
        pinned_at = local_midnight(min(pins), contract.zone)
    begins = books.schedule(books.named(contract.book), contract.zone, contract.starts_on).begins
    found = {at for at in begins if pinned_at is None or at < pinned_at}
    found |= {local_midnight(each.on, contract.zone) for each in contract.amendments}
    first, last = starts_at(contract), ends_at(contract) or _NEVER
    found |= {first, last, _trial_ends_at(contract, books) or _NEVER}
    return sorted(at for at in found if start < at < end and first <= at <= last)


_NEVER = datetime.max.replace(tzinfo=UTC)


def ends_at(contract: Contract) -> datetime | None:
    """When it ends, in UTC."""
    return local_midnight(contract.ends_on, contract.zone) if contract.ends_on else None


def _trial_ends_at(contract: Contract, books: Books) -> datetime | None:
    """The trial is what was promised as the contract began; a later plan or version does not change it."""
    days = contract.trial_days
    if days is None:
        first = version_as_of(contract, starts_at(contract), books)
        plan = first.plan(contract.plan) if first else None
        days = plan.trial_days if plan else 0
    return local_midnight(contract.starts_on + timedelta(days=days), contract.zone) if days else None


def _newest(value: Value | None, later: Sequence[Value | None]) -> Value | None:
    """The last that was said."""
    return next((each for each in reversed(later) if each is not None), value)
