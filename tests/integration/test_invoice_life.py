"""The life of issued invoices in a real PostgreSQL: what each trigger posts, tells and leaves; and two at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from threading import Barrier
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from invoicing import store as books
from invoicing.invoices.lifecycle import NotTakenError
from invoicing.invoices.store import invoice, issued_before_their_run
from invoicing.ledger import store as ledger
from invoicing.ledger.documents import Document
from invoicing.ledger.store import OtherContentError
from invoicing.periods import store as periods
from invoicing.settlement import app, store
from invoicing.settlement.app import ClosedPeriodError, NoCreditError
from meterline.ledger import posted
from meterline.verification import verified
from schemas.payment import FailedPayment, Payment, Refund, WriteOff
from stores.postgres import tenant_transaction
from tests.simulation.issued import ISSUED_AT, act, issued, stored

TODAY = date(2026, 2, 10)
BAD = WriteOff(reason="insolvent", tax_relief=True)


def payment(minor: int, name: str = "pay_1", **more: Any) -> Payment:
    told = {"payment": name, "amount_minor": minor, "currency": "EUR", "paid_on": date(2026, 2, 5), "payout": "po_1"}
    return Payment.model_validate({**told, **more})


def failed(name: str = "pay_1") -> FailedPayment:
    return FailedPayment(
        payment=name, amount_minor=100, currency="EUR", failed_on=date(2026, 2, 5), decline_code="do_not_honor"
    )


def refund(minor: int, name: str = "re_1") -> Refund:
    return Refund(refund=name, amount_minor=minor, currency="EUR", paid_on=TODAY, payout="po_2")


def done(database: sa.Engine, what: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with database.begin() as connection:
        return what(connection, act(**options), *arguments)


def row(database: sa.Engine, key: str) -> dict[str, Any]:
    with database.connect() as connection:
        return invoice(connection, "default", key).row(0, named=True)


def state(database: sa.Engine, key: str) -> tuple[str, str, int]:
    found = row(database, key)
    return found["state"], found["payment_status"], found["settled_minor"]


def postings(database: sa.Engine, document: str | None = None) -> list[tuple[str, str, int, int]]:
    """Template, document kind, account and minor units of all postings but those of invoices, in their order."""
    with database.connect() as connection:
        entries, lines = ledger.entries(connection, "default", document=document)
    named = entries.select("template", "document_kind", entry_id="id").filter(pl.col("document_kind") != "invoice")
    both = named.join(lines, on="entry_id", maintain_order="left_right")
    return both.select("template", "document_kind", "account", "amount_minor").rows()


def told(database: sa.Engine, key: str) -> list[str]:
    with database.connect() as connection:
        query = "SELECT type FROM outbox WHERE object_id = :id ORDER BY sequence"
        return list(connection.execute(sa.text(query), {"id": key}).scalars())


def credit(database: sa.Engine, customer: str = "c0") -> int:
    with database.connect() as connection:
        return int(store.credit(connection, "default", [customer])["credit_minor"].sum())


def balances(database: sa.Engine) -> dict[int, int]:
    with database.connect() as connection:
        found = ledger.balances(connection, "default")
    return dict(found.select("account", "balance_minor").rows())


@pytest.fixture(autouse=True)
def _books_are_as_posted(database: sa.Engine) -> Any:
    yield
    assert [each for _, _, each in verified(database) if each] == []


def test_a_payment_settles_an_invoice_in_parts(database: sa.Engine) -> None:
    """P09 each; partial, then paid; told once; the number of the invoice names it as its id does."""
    [key] = issued(database, [10_000])
    after, new = done(database, app.pay, "INV-000001", payment(5_000))
    assert (after["version"], new) == (2, True)
    assert state(database, key) == ("open", "partial", 5_000)
    done(database, app.pay, key, payment(7_000, "pay_2", payout=""))
    assert state(database, key) == ("paid", "succeeded", 12_000)
    assert postings(database) == [
        ("P09", "payment", 1010, 5_000), ("P09", "payment", 1100, -5_000),
        ("P09", "payment", 1010, 7_000), ("P09", "payment", 1100, -7_000),
    ]  # fmt: skip
    assert told(database, key) == ["invoice.finalized", "invoice.paid"]
    with database.connect() as connection:
        changes = store.changes(connection, [key])[key]
    assert [(each["from_state"], each["to_state"], each["changed_by"], each["reason"]) for each in changes] == [
        ("open", "open", "Ada", "payment pay_1"), ("open", "paid", "Ada", "payment pay_2"),
    ]  # fmt: skip


def test_what_is_paid_too_much_is_customer_credit(database: sa.Engine) -> None:
    """P11 with the excess on 2100; a second payment of a paid invoice is credit as a whole."""
    [key] = issued(database, [10_000])
    done(database, app.pay, key, payment(13_000))
    assert postings(database) == [
        ("P11", "payment", 1010, 13_000), ("P11", "payment", 1100, -12_000), ("P11", "payment", 2100, -1_000),
    ]  # fmt: skip
    done(database, app.pay, key, payment(400, "pay_2"))
    assert (credit(database), state(database, key)) == (1_400, ("paid", "succeeded", 12_000))
    assert row(database, key)["version"] == 3
    assert told(database, key) == ["invoice.finalized", "invoice.paid"]


def test_a_payment_told_twice_is_one(database: sa.Engine) -> None:
    """Also after the invoice went on; with another amount, day or invoice it is refused, and nothing changes."""
    key, other = issued(database, [10_000], [10_000])
    done(database, app.pay, key, payment(12_000))
    again, new = done(database, app.pay, key, payment(12_000))
    assert (new, again["state"], again["version"]) == (False, "paid", 2)
    for told_otherwise in (payment(11_000), payment(12_000, paid_on=TODAY), payment(12_000, payout="po_9")):
        with pytest.raises(OtherContentError, match="pay_1 was told before with another"):
            done(database, app.pay, key, told_otherwise)
    with pytest.raises(OtherContentError, match="another invoice_id"):
        done(database, app.pay, other, payment(12_000))
    assert len(postings(database)) == 2
    for wrong, message in (
        (payment(1, "pay_2", currency="USD"), "currency USD; allowed: that of invoice INV-000002, EUR"),
        (payment(1, "pay_2", paid_on=date(2026, 2, 12)), "in the future"),
    ):
        with pytest.raises(ValueError, match=message):
            done(database, app.pay, other, wrong)


def test_a_payment_of_closed_days_is_dated_on_the_first_open_one(database: sa.Engine) -> None:
    """And names the period that it is for."""
    [key] = issued(database, [10_000])
    with database.begin() as connection:
        periods.close_period(connection, "default", date(2026, 2, 8))
    done(database, app.pay, key, payment(12_000, paid_on=date(2026, 1, 30)))
    with database.connect() as connection:
        entries, _ = ledger.entries(connection, "default", document="pay_1")
    assert entries.select("effective_at", "relates_to_period").row(0) == (date(2026, 2, 9), "2026-01")


def test_a_failed_payment_is_told_and_posts_nothing(database: sa.Engine) -> None:
    """Once, however often it is told; the same payment may succeed afterwards."""
    [key] = issued(database, [10_000])
    assert done(database, app.fail_payment, key, failed())[1]
    assert not done(database, app.fail_payment, key, failed())[1]
    assert (state(database, key), postings(database)) == (("open", "failed", 0), [])
    assert told(database, key) == ["invoice.finalized", "invoice.payment_failed"]
    done(database, app.pay, key, payment(12_000))
    assert state(database, key) == ("paid", "succeeded", 12_000)
    with pytest.raises(NotTakenError, match=r"INV-000001 is paid and does not take fail_payment; allowed: pay"):
        done(database, app.fail_payment, key, failed("pay_9"))


def test_credit_is_applied_as_an_invoice_is_issued(database: sa.Engine) -> None:
    """Up to what is due, and up to what there is, in the invoices' order; in the transaction of the issue."""
    issued(database, [-10_000])  # 120.00 credit
    assert credit(database) == 12_000
    first, second, third = issued(database, [5_000], [5_000], [5_000], customer="c0", kind="manual")
    assert [state(database, each) for each in (first, second, third)] == [
        ("paid", "succeeded", 6_000), ("paid", "succeeded", 6_000), ("open", "pending", 0),
    ]  # fmt: skip
    assert postings(database) == 2 * [("P14", "application", 2100, 6_000), ("P14", "application", 1100, -6_000)]
    assert told(database, first) == ["invoice.finalized", "invoice.paid"]
    assert (credit(database), balances(database)[1100]) == (0, 6_000)
    [other] = issued(database, [100], kind="manual", customer="other")
    assert state(database, other)[0] == "open"


def test_credit_is_applied_by_command_and_paid_back(database: sa.Engine) -> None:
    """At most so much as is asked for, due and there; what a refund leaves is never below zero."""
    [key] = issued(database, [10_000])
    issued(database, [-5_000], customer="c0", kind="manual")
    assert done(database, app.apply_credit, key, 1_000)[1] == 1_000
    assert state(database, key) == ("open", "pending", 1_000)
    with pytest.raises(NoCreditError, match="c0 has 5000 minor units of EUR in credit"):
        done(database, app.refund, "c0", refund(5_001))
    assert done(database, app.refund, "c0", refund(2_000))
    assert not done(database, app.refund, "c0", refund(2_000))
    with pytest.raises(OtherContentError, match="another amount_minor"):
        done(database, app.refund, "c0", refund(2_001))
    assert done(database, app.apply_credit, key)[1] == 3_000
    assert done(database, app.apply_credit, key)[1] == 0
    assert (credit(database), state(database, key), row(database, key)["version"]) == (0, ("open", "pending", 4_000), 3)
    assert balances(database) == {1010: -2_000, 1100: 8_000, 2000: -1_000, 4010: -5_000}


def test_a_void_invoice_is_mirrored_and_billed_again(database: sa.Engine) -> None:
    """P30 on the day of its entry; applied credit goes back first; its period is rated again; its number stays."""
    issued(database, [-1_000], customer="c0", kind="manual")
    [key] = issued(database, [10_000])
    assert state(database, key) == ("open", "pending", 1_200)
    done(database, app.void, key, "wrong customer")
    assert state(database, key) == ("void", "pending", 0)
    assert postings(database)[2:] == [
        ("P14", "reversal", 2100, -1_200), ("P14", "reversal", 1100, 1_200),
        ("P30", "void", 1100, -12_000), ("P30", "void", 4010, 10_000), ("P30", "void", 2000, 2_000),
    ]  # fmt: skip
    assert credit(database) == 1_200
    with database.connect() as connection:
        entries, _ = ledger.entries(connection, "default", document=key)
        assert books.periods_to_rate(connection, "default") == {"2026-01"}
        assert issued_before_their_run(connection, "default", "2026-01").rows() == [("c0", "EUR")]
    by_kind = dict(entries.select("document_kind", "effective_at").rows())
    assert by_kind["invoice"] == by_kind["void"] == date(2026, 1, 31)
    assert told(database, key) == ["invoice.finalized", "invoice.voided"]
    assert balances(database) == {2100: -1_200, 2000: 200, 4010: 1_000}
    with pytest.raises(NotTakenError, match="INV-000002 is void and does not take pay; allowed: nothing"):
        done(database, app.pay, key, payment(1))


def test_what_cannot_be_voided_says_what_to_do(database: sa.Engine) -> None:
    """A payment came in, or the period is closed."""
    paid_in_part, of_closed = issued(database, [10_000], [10_000])
    done(database, app.pay, paid_in_part, payment(1))
    with pytest.raises(NotTakenError, match="because payment settled a part; make a credit note; allowed: pay, "):
        done(database, app.void, paid_in_part, "x")
    with database.begin() as connection:
        periods.close_period(connection, "default", date(2026, 1, 31))
    with pytest.raises(ClosedPeriodError, match="2026-01-31, and the books of that day are closed; make a credit note"):
        done(database, app.void, of_closed, "x")
    now = datetime.now(UTC)  # the database's own clock says whether a period is open again
    with database.begin() as connection:
        periods.reopen_period(
            connection, "default", date(2026, 1, 31), by="Ada", why="x", opened_at=now, until=now + timedelta(hours=1)
        )
    done(database, app.void, of_closed, "x", now=now)
    assert state(database, of_closed)[0] == "void"


@pytest.mark.parametrize("relief", [True, False])
def test_an_invoice_is_written_off_and_recovered(database: sa.Engine, relief: bool) -> None:
    """P18 and P19 over what is due; a late payment takes both back, and what it leaves is due again."""
    [key] = issued(database, [10_000])
    done(database, app.pay, key, payment(6_000))
    done(database, app.mark_uncollectible, key, WriteOff(reason="insolvent", tax_relief=relief))
    assert state(database, key) == ("uncollectible", "partial", 12_000)
    net, tax = (5_000, [("P19", "write-off", 2000, 1_000)]) if relief else (6_000, [])
    assert postings(database)[2:] == [
        ("P18", "provision", 6100, net), ("P18", "provision", 1190, -net),
        ("P19", "write-off", 1190, net), *tax, ("P19", "write-off", 1100, -6_000),
    ]  # fmt: skip
    assert told(database, key)[1:] == ["invoice.uncollectible"]
    with pytest.raises(NotTakenError, match="is uncollectible and does not take void; allowed: recover"):
        done(database, app.void, key, "x")
    done(database, app.pay, key, payment(2_000, "pay_2"))
    assert state(database, key) == ("open", "partial", 8_000)
    assert balances(database) == {1010: 8_000, 1100: 4_000, 2000: -2_000, 4010: -10_000}
    done(database, app.mark_uncollectible, key, WriteOff(reason="again", tax_relief=relief))
    done(database, app.pay, key, payment(5_000, "pay_3"))
    assert (state(database, key), credit(database)) == (("paid", "succeeded", 12_000), 1_000)
    assert balances(database) == {1010: 13_000, 2100: -1_000, 2000: -2_000, 4010: -10_000}
    assert told(database, key)[2:] == ["invoice.uncollectible", "invoice.paid"]


def test_a_write_off_uses_what_is_provided(database: sa.Engine) -> None:
    """P18 is for what the customer's allowance does not cover."""
    [key] = issued(database, [1_000])
    document = {"template": "P18", "document": "ageing", "customer": "c0", "currency": "EUR"}
    provided = {**document, "effective_at": "2026-02-01", "amounts": {"provision": "7.00"}}
    posted(database, "default", [Document.model_validate(provided)], now=ISSUED_AT)
    done(database, app.mark_uncollectible, key, BAD)
    assert [minor for *_, account, minor in postings(database) if account == 6100] == [700, 300]


def test_a_stored_draft_is_issued_and_its_period_rated_again(database: sa.Engine) -> None:
    """It has the next number and version; what is no draft is refused."""
    [key] = stored(database, [10_000])
    after = done(database, app.finalize, key)
    assert (after["number"], after["state"], after["version"], after["issued_at"]) == (
        "INV-000001", "open", 2, datetime(2026, 2, 10, 9, tzinfo=UTC),
    )  # fmt: skip
    assert row(database, key) == after
    with database.connect() as connection:
        assert books.periods_to_rate(connection, "default") == {"2026-01"}
    assert told(database, key) == ["invoice.finalized"]
    with pytest.raises(NotTakenError, match="INV-000001 is open and does not take finalize; allowed: pay, fail_pay"):
        done(database, app.finalize, key)
    with pytest.raises(LookupError, match="no invoice x"):
        done(database, app.finalize, "x")


def test_a_draft_that_credit_covers_is_paid_at_once(database: sa.Engine) -> None:
    """Its application names the version that it has from then on."""
    issued(database, [-20_000], customer="c0", kind="manual")
    [key] = stored(database, [10_000])
    after = done(database, app.finalize, key)
    assert (after["state"], after["settled_minor"], after["version"]) == ("paid", 12_000, 2)
    assert told(database, key) == ["invoice.finalized", "invoice.paid"]
    with database.connect() as connection:
        [applied] = store.applications(connection, [key])[key]
        entries, _ = ledger.entries(connection, "default", entry_id=applied["entry_id"])
    assert (entries["template"].item(), entries["document_version"].item()) == ("P14", 2)


def at_once(database: sa.Engine, *calls: tuple[Any, ...]) -> list[Any]:
    """What calls that start together return, or raise."""
    together = Barrier(len(calls))

    def one(call: tuple[Any, ...]) -> Any:
        try:
            with database.begin() as connection:
                together.wait()
                return call[0](connection, act(), *call[1:])
        except (NotTakenError, OtherContentError, NoCreditError) as error:
            return type(error)

    with ThreadPoolExecutor(len(calls)) as pool:
        return [*pool.map(one, calls)]


def test_two_payments_at_once_are_both_booked(database: sa.Engine) -> None:
    """One after the other: what is too much together is credit. The same payment twice is one."""
    first, second = issued(database, [10_000], [10_000])
    at_once(database, (app.pay, first, payment(9_000, "a")), (app.pay, first, payment(9_000, "b")))
    assert (state(database, first), credit(database)) == (("paid", "succeeded", 12_000), 6_000)
    same = payment(12_000, "c")
    found = at_once(database, *[(app.pay, second, same)] * 4)
    assert sorted(new for _, new in found) == [False, False, False, True]
    assert balances(database)[1010] == 30_000


def test_one_payment_of_two_invoices_at_once_settles_one(database: sa.Engine) -> None:
    """The other one is refused, whichever came first."""
    first, second = issued(database, [10_000], [10_000])
    found = at_once(database, (app.pay, first, payment(12_000)), (app.pay, second, payment(12_000)))
    assert OtherContentError in found
    assert sorted(state(database, each)[0] for each in (first, second)) == ["open", "paid"]


def test_a_payment_and_a_void_at_once(database: sa.Engine) -> None:
    """Who comes second is refused; never both."""
    keys = issued(database, *[[10_000]] * 4)
    for number, key in enumerate(keys):
        found = at_once(database, (app.pay, key, payment(12_000, f"p{number}")), (app.void, key, "x"))
        assert found.count(NotTakenError) == 1
    states = {state(database, each)[0] for each in keys}
    assert states <= {"paid", "void"}


def test_credit_is_spent_once_by_many_at_once(database: sa.Engine) -> None:
    """Invoices that are issued, credit that is applied and refunds: together never more than there was."""
    open_ones = issued(database, *[[10_000]] * 3, customer="c0", kind="manual")
    drafts = stored(database, *[[10_000]] * 2, customer="c0", kind="manual", first=10)
    issued(database, [-20_000], customer="c0", kind="manual", first=90)
    at_once(
        database,
        *((app.apply_credit, each) for each in open_ones),
        *((app.finalize, each) for each in drafts),
        (app.refund, "c0", refund(9_000)),
    )
    assert credit(database) == 0
    spent = sum(state(database, each)[2] for each in (*open_ones, *drafts)) + max(-balances(database).get(1010, 0), 0)
    assert spent == 24_000


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE payments SET amount_minor = 1", "a payment is never changed"),
        ("DELETE FROM payments", "a payment is never changed"),
        ("TRUNCATE refunds", "a refund is never changed"),
        (("INSERT INTO payments SELECT tenant, 'x', outcome, invoice_id, currency, 5, 6, happened_on, payout, decline_code, "
         "entry_id, recorded_at FROM payments"), "payments_check"),
        (("INSERT INTO payments SELECT tenant, 'x', 'failed', invoice_id, currency, 5, 0, happened_on, payout, decline_code, "
         "entry_id, recorded_at FROM payments"), "failed_posts_nothing"),
        ("UPDATE invoices SET settled_minor = 200, version = version + 1 WHERE state = 'open'", "sums to 100, it says 200"),
        (("INSERT INTO applications SELECT 'x', tenant, invoice_id, kind, 7, reference, entry_id, applied_at "
         "FROM applications"), "sums to 107, it says 100"),
        ("UPDATE applications SET amount_minor = 1", "is taken back, never changed"),
        ("UPDATE invoices SET state = 'paid', version = version + 1 WHERE state = 'open'", "open_is_due|paid_is_succeeded"),
        ("UPDATE invoices SET state = 'draft', version = version + 1 WHERE state = 'open'", "does not go from open to draft"),
        ("UPDATE invoices SET state = 'void', version = version + 1 WHERE state = 'draft'", "does not go from draft to void"),
        ("UPDATE invoices SET payment_status = 'failed' WHERE state = 'open'", "goes from version 2 to 3, not 2"),
        ("UPDATE invoices SET total_minor = 1, version = version + 1 WHERE state = 'open'", "posted rows never change"),
    ],
)  # fmt: skip
def test_the_database_holds_what_settles_an_invoice(database: sa.Engine, statement: str, message: str) -> None:
    """Whoever writes, with plain SQL."""
    [key] = issued(database, [10_000])
    stored(database, [10_000], first=5)
    done(database, app.pay, key, payment(100))

    def written() -> None:
        with database.begin() as connection:
            connection.exec_driver_sql(statement)

    with pytest.raises(sa.exc.IntegrityError, match=message):
        written()


def test_payments_are_seen_by_their_tenant_alone(database: sa.Engine) -> None:
    """As the application's role, which row-level security is for."""
    [key] = issued(database, [10_000])
    done(database, app.pay, key, payment(100))
    for tenant, count in (("default", 1), ("other", 0)):
        with tenant_transaction(database, tenant) as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM payments").scalar_one() == count
            with pytest.raises(sa.exc.ProgrammingError, match="permission denied"), connection.begin_nested():
                connection.exec_driver_sql("DELETE FROM payments")
