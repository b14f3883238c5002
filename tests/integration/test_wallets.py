"""Wallets in a real PostgreSQL: never below zero, whoever hammers, and the books hold what is left of paid credits."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import orjson
import polars as pl
import pytest
import sqlalchemy as sa

from invoicing.ledger.store import OtherContentError
from invoicing.outbox.store import events_after
from invoicing.periods.store import close_period
from invoicing.wallets import store
from invoicing.wallets.lots import INVOICES
from invoicing.wallets.store import Lot
from meterline.verification import verified
from schemas.identity import digest
from stores.postgres import tenant_transaction
from tests.simulation.books import balances, post

NOW = datetime(2026, 1, 10, tzinfo=UTC)
CLEARING, RECEIVABLE, PREPAID, DISCOUNTS, BREAKAGE = 1010, 1100, 2150, 4090, 4900


def prepaid(connection: sa.Connection) -> dict[str, int]:
    """What is left of paid lots, by currency: the balance that account 2150 must have, as a credit."""
    left = store.lots_of(connection, "default").filter((pl.col("kind") == "paid") & (pl.col("balance_minor") > 0))
    return dict(left.group_by("currency").agg(pl.sum("balance_minor")).iter_rows())


def lot(reference: str, minor: int, customer: str = "UA", **more: object) -> Lot:
    return Lot(customer, "USD", minor, reference, **more)  # type: ignore[arg-type]


def balance(connection: sa.Connection, account: int, customer: str = "UA") -> int:
    return balances(connection, account).get(customer, 0)


def holds(connection: sa.Connection) -> None:
    """Account 2150 is what is left of paid lots."""
    by_wallet = balances(connection, PREPAID, by="dimension")
    assert -sum(by_wallet.values()) == prepaid(connection).get("USD", 0)
    held = connection.exec_driver_sql("SELECT id, balance_minor FROM wallets").fetchall()
    assert dict(held).keys() >= by_wallet.keys()  # type: ignore[arg-type]


def left(connection: sa.Connection, customer: str = "UA", at: datetime | None = None) -> dict[str, int]:
    lots = store.lots_of(connection, "default", customer, at=at)
    references = dict(connection.exec_driver_sql("SELECT id, reference FROM wallet_lots").fetchall())  # type: ignore[arg-type]
    return {references[lot_id]: minor for lot_id, minor in lots.select("id", "balance_minor").iter_rows()}


def burn(connection: sa.Connection, invoice: str, due: int, at: datetime = NOW, customer: str = "UA") -> int:
    burns = store.burn(
        connection, "default", invoice_id=invoice, customer=customer, currency="USD", due_minor=due, at=at
    )
    return int(burns["burned_minor"].sum())


def burns_left(burns: pl.DataFrame) -> list[tuple[object, ...]]:
    """What was burned of each kind, after a look that each entry is named."""
    assert burns["entry_id"].str.len_bytes().to_list() == [32] * burns.height
    return burns.select("kind", "burned_minor").rows()


def told(connection: sa.Connection) -> list[tuple[str, int, int, int]]:
    """The events of wallets: type, version, what moved and the balance after it."""
    events = [(each, orjson.loads(each.data)) for each in events_after(connection, "default", 0, 100)]
    return [(each.type.removeprefix("wallet."), each.version, said["amountMinor"], said["balanceMinor"])
            for each, said in events]  # fmt: skip


def test_credits_come_in_pay_come_back_and_expire(database: sa.Engine) -> None:
    """The life of a wallet, with the books after each step: by priority, then by expiry; clamped to what there is."""
    soon, later = NOW + timedelta(days=20), NOW + timedelta(days=50)
    with database.begin() as connection:
        for _ in range(2):  # the same top-up twice is one
            store.top_up(connection, "default", lot("pay-1", 100, expires_at=later), at=NOW)
            store.top_up(connection, "default", lot("pay-2", 50, expires_at=soon), at=NOW)
            store.top_up(connection, "default", lot("gift", 30, promotional=True, priority=10), at=NOW)
        with pytest.raises(OtherContentError, match="top-up pay-1 of UA was made with another content"):
            store.top_up(connection, "default", lot("pay-1", 101, expires_at=later), at=NOW)
        assert (balance(connection, CLEARING), balance(connection, PREPAID)) == (150, -150)
        assert burn(connection, "INV-1", 120, NOW + timedelta(days=1)) == 120
        assert burn(connection, "INV-1", 120, NOW + timedelta(days=1)) == 120  # an invoice burns once
        assert left(connection) == {"gift": 0, "pay-2": 0, "pay-1": 60}
        assert [balance(connection, account) for account in (RECEIVABLE, PREPAID, DISCOUNTS)] == [-120, -60, 30]
        holds(connection)
        given = {"invoice_id": "INV-1", "amount_minor": 95, "reference": "CN-1", "at": NOW + timedelta(days=2)}
        for _ in range(2):  # the last burned first: 40, 50, then 5 of the gift
            assert burns_left(store.give_back(connection, "default", **given)) == [("promotional", 25)]
        assert left(connection) == {"gift": 5, "pay-2": 50, "pay-1": 100}
        assert [balance(connection, account) for account in (RECEIVABLE, PREPAID, DISCOUNTS)] == [-25, -150, 25]
        with pytest.raises(ValueError, match="allowed: 1 to 25"):
            store.give_back(connection, "default", **{**given, "amount_minor": 26, "reference": "CN-2"})
        assert burn(connection, "INV-2", 60, soon) == 60  # pay-2 expires in this moment, and does not pay
        assert left(connection) == {"gift": 0, "pay-2": 50, "pay-1": 45}
        for lots in (1, 0):
            assert store.expire(connection, "default", at=later - timedelta(days=1)) == lots
        assert balance(connection, BREAKAGE) == -50
        assert burn(connection, "INV-3", 500, later - timedelta(hours=1)) == 45
        assert burn(connection, "INV-4", 5, later) == 0
        holds(connection)
        assert left(connection, at=NOW + timedelta(days=1)) == {"gift": 0, "pay-2": 0, "pay-1": 60}
        assert left(connection, at=NOW - timedelta(days=1)) == {}
        assert told(connection) == [
            ("credited", 1, 100, 100), ("credited", 2, 50, 150), ("credited", 3, 30, 180), ("debited", 4, -120, 60),
            ("credited", 5, 95, 155), ("debited", 6, -60, 95), ("expired", 7, -50, 45), ("debited", 8, -45, 0),
            ("depleted", 8, -45, 0),
        ]  # fmt: skip
    assert [finding for *_, finding in verified(database)] == [None]


def test_what_all_came_back_is_burned_no_more(database: sa.Engine) -> None:
    """A voided invoice's credits are there again for others; asked again, the invoice itself burns none."""
    with database.begin() as connection:
        store.top_up(connection, "default", lot("pay-1", 50), at=NOW)
        store.top_up(connection, "default", lot("gift", 30, promotional=True), at=NOW)
        store.top_up(connection, "default", lot("pay-2", 20, invoiced=True), at=NOW)
        assert burn(connection, "INV-1", 100) == 100
        back = {"invoice_id": "INV-1", "at": NOW}
        store.give_back(connection, "default", amount_minor=40, reference="CN-1", **back)
        assert store.give_back(connection, "default", amount_minor=60, reference="void", **back).is_empty()
        assert burn(connection, "INV-1", 100) == 0
        assert [balance(connection, account) for account in (RECEIVABLE, PREPAID, DISCOUNTS)] == [20, -70, 0]
        with pytest.raises(LookupError, match="invoice INV-2 burned no credits"):
            store.give_back(connection, "default", amount_minor=1, reference="x", invoice_id="INV-2", at=NOW)
        holds(connection)


def test_credits_that_expire_in_closed_books_are_breakage_of_the_first_open_day(database: sa.Engine) -> None:
    """And a closed period keeps what it says."""
    with database.begin() as connection:
        store.top_up(connection, "default", lot("a", 10, expires_at=NOW + timedelta(days=3)), at=NOW)
        close_period(connection, "default", date(2026, 1, 31))
        assert store.expire(connection, "default", at=NOW + timedelta(days=30)) == 1
        assert balances(connection, BREAKAGE, by="dimension", through=date(2026, 1, 31)) == {}
        assert balances(connection, BREAKAGE, by="dimension", through=date(2026, 2, 1)) == {"": -10}


def test_a_tenant_sees_and_moves_its_own_wallets_alone(database: sa.Engine) -> None:
    """Neither read nor write reaches another tenant's credits, and nobody sets a balance."""
    with tenant_transaction(database, "acme") as connection:
        store.top_up(connection, "acme", lot("a", 10), at=NOW)
        store.burn(connection, "acme", invoice_id="I", customer="UA", currency="USD", due_minor=4, at=NOW)
    for table in ("wallets", "wallet_lots", "wallet_moves", "settlements", "settlement_matches", "settled_entries",
                  "settlement_reviews", "recognitions", "recognition_credits", "accruals"):  # fmt: skip
        with tenant_transaction(database, "rival") as connection:
            assert connection.exec_driver_sql(f"SELECT * FROM {table}").all() == []
            assert store.lots_of(connection, "rival").is_empty()
    for statement, message in {
        "INSERT INTO wallet_lots SELECT 'x', 'rival', digest, 'paid', 1, 1, now(), NULL, false, 'r' FROM "
        "(SELECT '{}' AS digest) AS known": "violates foreign key",
        "INSERT INTO wallets VALUES ('w', 'acme', 'UA', 'EUR', now())": "row-level security",
        "INSERT INTO wallets VALUES ('w', 'rival', 'UA', 'EUR', now(), 5)": "a wallet opens empty",
        "UPDATE wallets SET version = 9": "the balance of a wallet follows its moves",
        "UPDATE wallets SET balance_minor = 9": "permission denied",
    }.items():
        with pytest.raises(sa.exc.DBAPIError, match=message), tenant_transaction(database, "rival") as connection:
            connection.exec_driver_sql(statement.format(digest("wallet", "acme", "UA", "USD")))


def test_a_wallet_is_never_below_zero_under_hammering(database: sa.Engine) -> None:
    """Six connections post and burn at once, the same invoices twice: what is burned is what there was, each once."""
    with database.begin() as connection:
        store.top_up(connection, "default", lot("a", 70), at=NOW)
        store.top_up(connection, "default", lot("b", 80, promotional=True), at=NOW)

    def one(number: int) -> int:
        with database.begin() as connection:
            if number % 3 == 0:  # as a bill run does, which holds the ledger before it comes to the wallets
                post(connection, "P02", f"other {number}", NOW.date(), customer="AA", total=1, subtotal=1)
            return burn(connection, f"INV-{number % 18}", 11)

    with ThreadPoolExecutor(6) as pool:
        burns = list(pool.map(one, range(36)))
    by_invoice = {number % 18: minor for number, minor in enumerate(burns)}
    assert burns == [by_invoice[number % 18] for number in range(36)]
    assert sum(by_invoice.values()) == 150
    assert sorted(by_invoice.values()) == [0] * 4 + [7] + [11] * 13
    with database.begin() as connection:
        assert left(connection) == {"a": 0, "b": 0}
        assert (balance(connection, PREPAID), balance(connection, RECEIVABLE)) == (0, -150)


MOVE = """INSERT INTO wallet_moves (tenant, lot_id, sequence, kind, document_id, invoice_id, amount_minor, balance_minor,
          granted_minor, moved_at, previous_sequence, previous_balance_minor)
          SELECT 'default', id, {sequence}, '{kind}', 'x', 'x', {minor}, {balance}, granted_minor, now(), {before}, {held}
          FROM wallet_lots"""


@pytest.mark.parametrize(
    ("move", "message"),
    [
        ({"minor": -11, "balance": -1}, "wallet_moves_balance_minor_check"),
        ({"minor": -11, "balance": 0}, "a_balance_follows_from_the_one_before"),
        ({"minor": -11, "balance": 0, "held": 11}, "moves_are_a_chain"),
        ({"minor": -5, "balance": 5, "sequence": 2, "before": 1}, "moves_are_a_chain"),
        ({"minor": -5, "balance": 5, "sequence": 2, "before": 0}, "a_chain_begins_with_the_grant"),
        ({"minor": -5, "balance": 5, "sequence": 1, "before": "NULL"}, "a_chain_begins_with_the_grant"),
        ({"minor": 5, "balance": 15, "kind": "return"}, "a_lot_holds_at_most_its_grant"),
        ({"minor": -5, "balance": 5, "kind": "return"}, "kinds_have_their_sign"),
    ],
)
def test_the_database_refuses_a_move_that_does_not_follow(
    database: sa.Engine, move: dict[str, object], message: str
) -> None:
    """Whoever writes: no overdraft, no gap, no second chain, no more than was put in."""
    with database.begin() as connection:
        store.top_up(connection, "default", lot("a", 10), at=NOW)
    wrong = MOVE.format(**{"sequence": 1, "kind": "burn", "before": 0, "held": 10, **move})
    with pytest.raises(sa.exc.IntegrityError, match=message), database.begin() as connection:
        connection.exec_driver_sql(wrong)


def test_two_that_follow_the_same_move_cannot_both_be_there(database: sa.Engine) -> None:
    """Without our lock: the second of two burns of the same credits waits for the first, and is refused."""
    with database.begin() as connection:
        store.top_up(connection, "default", lot("a", 10), at=NOW)
    move = MOVE.format(sequence=1, kind="burn", minor=-10, balance=0, before=0, held=10)
    with ThreadPoolExecutor(1) as pool, database.begin() as first:
        first.exec_driver_sql(move)

        def second() -> None:
            with database.begin() as connection:
                connection.exec_driver_sql(move)

        waiting = pool.submit(second)
        first.commit()
        with pytest.raises(sa.exc.IntegrityError, match="wallet_moves_pkey"):
            waiting.result(timeout=30)
    with database.begin() as connection, pytest.raises(sa.exc.DBAPIError, match="a move never changes"):
        connection.exec_driver_sql("DELETE FROM wallet_moves")


def test_a_bill_run_burns_for_those_who_have_a_wallet(database: sa.Engine) -> None:
    """Thousands of customers, few with credits; two invoices of one share its lots; the books follow in one posting."""
    with database.begin() as connection:
        for number in range(0, 3_000, 600):
            store.top_up(connection, "default", lot(f"pay-{number}", 150, f"C{number:04}"), at=NOW)
        rows = [(f"I{number:04}-{turn}", f"C{number:04}", "USD", 100) for number in range(3_000) for turn in (1, 2)]
        invoices = pl.DataFrame(rows, schema=INVOICES, orient="row").sample(fraction=1, shuffle=True, seed=1)
        for _ in range(2):
            burns = store.burn_many(connection, "default", invoices, at=NOW, effective_at=date(2026, 1, 31))
            expected = [(f"I{number:04}-{turn}", 150 - 50 * turn) for number in range(0, 3_000, 600) for turn in (1, 2)]
            assert burns.select("invoice_id", "burned_minor").rows() == expected
        holds(connection)
        assert prepaid(connection) == {}


def test_what_moves_on_a_closed_day_is_posted_on_the_first_open_one(database: sa.Engine) -> None:
    """A month is closed on its last day: what is put in, burned and given back on that day is dated behind it."""
    at, opens = datetime(2026, 1, 31, 18, tzinfo=UTC), date(2026, 2, 1)
    with database.begin() as connection:
        close_period(connection, "default", at.date())
    with database.begin() as connection:
        store.top_up(connection, "default", lot("paid", 500), at=at)
        store.top_up(connection, "default", lot("free", 200, promotional=True, priority=60), at=at)
        assert burn(connection, "one", 600, at=at) == 600
        store.give_back(connection, "default", invoice_id="one", amount_minor=150, reference="void", at=at)
        holds(connection)
        query = "SELECT DISTINCT document_kind, effective_at, relates_to_period FROM journal_entries ORDER BY 1"
        assert [tuple(row) for row in connection.exec_driver_sql(query)] == [
            ("reversal", opens, None), ("top-up", opens, "2026-01"), ("wallet burn", opens, "2026-01"),
        ]  # fmt: skip
