"""A payout against the clearing account, in a real PostgreSQL, from the gateway's own file."""

from datetime import UTC, date, datetime

import polars as pl
import pytest
import sqlalchemy as sa

from invoicing.ledger.store import OtherContentError
from invoicing.reconciliation import store
from invoicing.reconciliation.files import STRIPE, is_stripe, parse_mapping, settlement_rows
from invoicing.wallets.store import Lot, top_up
from meterline.ledger import reverse
from schemas.configuration import ConfigurationError
from tests.simulation.books import balances, post

NOW = datetime(2026, 2, 3, tzinfo=UTC)
CASH, CLEARING, FEES = 1000, 1010, 6200
HEADER = (
    "automatic_payout_id,automatic_payout_effective_at,balance_transaction_id,created,available_on,currency,gross,fee,net,"
    "reporting_category,source_id,description,charge_id,payment_intent_id\n"
)
#      what               currency  gross    fee   net     category  source      charge payment intent
ROWS = [
    ("po_1", "txn_1", "usd", "120.00", "3.78", "116.22", "charge", "ch_1", "ch_1", "pi_1"),
    ("po_1", "txn_2", "usd", "60.00", "2.04", "57.96", "charge", "ch_2", "ch_2", "pi_2"),  # the books know the intent
    ("po_1", "txn_3", "usd", "-20.00", "0", "-20.00", "refund", "re_1", "ch_1", "pi_1"),
    ("po_1", "txn_4", "usd", "-1.50", "0.00", "-1.50", "fee", "fee_1", "", ""),
    ("po_1", "txn_5", "usd", "500.00", "0", "500.00", "charge", "ch_w", "ch_w", "pi_w"),  # a wallet's top-up
    ("po_1", "txn_6", "usd", "33.00", "1.00", "32.00", "charge", "ch_3", "ch_3", "pi_3"),  # 30.00 in the books
    ("po_1", "txn_7", "usd", "9.00", "1.00", "8.00", "charge", "ch_9", "ch_9", "pi_9"),  # not in the books
    ("po_2", "txn_8", "usd", "70.00", "1.00", "69.00", "charge", "ch_4", "ch_4", "pi_4"),
]


def report(rows: list[tuple[str, ...]]) -> str:
    return HEADER + "".join(
        f"{payout},2026-02-02 00:00:00,{txn},2026-01-30 11:00:00,2026-02-02 00:00:00,{currency},{gross},{fee},{net},{category},"
        f"{source},words,{charge},{intent}\n"
        for payout, txn, currency, gross, fee, net, category, source, charge, intent in rows
    )


def paid(connection: sa.Connection, template: str, reference: str, minor: int, payout: str = "") -> str:
    name = "payment" if template in {"P08", "P09"} else "refund"
    return post(connection, template, reference, date(2026, 1, 30), dimension=payout, **{name: minor})


def payments(connection: sa.Connection) -> None:
    """What the books say: five payments, a refund and a top-up."""
    for reference, minor in {"ch_1": 12_000, "pi_2": 6_000, "ch_3": 3_000, "ch_4": 7_000, "ch_5": 100}.items():
        paid(connection, "P09", reference, minor)
    paid(connection, "P15", "re_1", 2_000)
    top_up(connection, "default", Lot("UA", "USD", 50_000, "ch_w"), at=datetime(2026, 1, 30, tzinfo=UTC))


def reconcile(connection: sa.Connection, rows: list[tuple[str, ...]], payout: str = "po_1") -> store.Reconciled:
    read = settlement_rows(report(rows), "report.csv", STRIPE, payout=payout)
    return store.reconcile_payout(connection, "default", payout, read.rows, file_digest="x", at=NOW)


def total(connection: sa.Connection, account: int) -> int:
    return sum(balances(connection, account).values())


def outcomes(done: store.Reconciled) -> dict[str, list[str]]:
    rows = done.result.matches.sort("reference").select("outcome", "reference").rows()
    return {outcome: [name for each, name in rows if each == outcome] for outcome, _ in rows}


def test_a_payout_is_matched_posted_and_flagged(database: sa.Engine) -> None:
    """Charges, a refund, a top-up and a fee of the gateway; what differs is flagged and stays on the clearing account."""
    with database.begin() as connection:
        payments(connection)
        before = total(connection, CLEARING)
        done = reconcile(connection, ROWS)
        assert outcomes(done) == {
            "matched": ["ch_1", "ch_w", "fee_1", "pi_2", "re_1"], "mismatched": ["ch_3"],
            "unmatched_in_file": ["ch_9"], "unmatched_in_ledger": ["ch_4", "ch_5"],
        }  # fmt: skip
        settled = 12_000 + 6_000 - 2_000 + 50_000
        assert total(connection, CLEARING) == before - settled
        assert (total(connection, CASH), total(connection, FEES)) == (settled - 378 - 204 - 150, 378 + 204 + 150)
        again = reconcile(connection, ROWS[::-1])
        assert (again.posted, again.result.digest) == (0, done.result.digest)
        assert connection.exec_driver_sql("SELECT count(*) FROM settlements").scalar_one() == 1
        flagged = store.flags(connection, "default", "po_1")
        assert sorted(flagged["reference"]) == ["ch_3", "ch_4", "ch_5", "ch_9"]
        [wrong] = flagged.filter(pl.col("reference") == "ch_3").rows(named=True)
        assert wrong["reason"] == "amount differs, found by reference"
        store.resolve(connection, "default", wrong["id"], who="ann", note="refund is on its way", at=NOW)
        with pytest.raises(LookupError, match="no open flag"):
            store.resolve(connection, "default", wrong["id"], who="ann", note="again", at=NOW)
        assert wrong["id"] not in store.flags(connection, "default")["id"].to_list()


def test_the_clearing_account_returns_to_zero(database: sa.Engine) -> None:
    """A second payout settles the rest; a mended entry matches when the payout is matched again, and clears its flag."""
    with database.begin() as connection:
        payments(connection)
        reconcile(connection, ROWS)
        second = reconcile(connection, ROWS, "po_2")
        assert outcomes(second)["matched"] == ["ch_4"]
        assert "ch_4" not in store.flags(connection, "default")["reference"].to_list()
        paid(connection, "P09", "ch_9", 900)
        assert reconcile(connection, ROWS).posted == 1
        assert "ch_9" not in store.flags(connection, "default")["reference"].to_list()
        mended = [row if row[1] != "txn_6" else (*row[:3], "30.00", "1.00", "29.00", *row[6:]) for row in ROWS]
        last = reconcile(
            connection, [*mended, ("po_1", "txn_10", "usd", "1.00", "0", "1.00", "charge", "ch_5", "", "")]
        )
        assert set(outcomes(last)) == {"matched"}
        assert balances(connection, CLEARING, by="dimension") == {}
        changed = [row if row[1] != "txn_1" else (*row[:4], "4.00", "116.00", *row[6:]) for row in mended]
        with pytest.raises(OtherContentError, match="ch_1 was settled by another row of payout po_1"):
            reconcile(connection, changed)


def test_the_payout_that_a_payment_names_is_the_one_that_settles_it(database: sa.Engine) -> None:
    """Under its own dimension the account returns to zero; another payout's payment is a mismatch, or none of its business."""
    with database.begin() as connection:
        paid(connection, "P09", "ch_1", 12_000, "po_1")
        paid(connection, "P09", "pi_2", 6_000, "po_2")
        paid(connection, "P09", "ch_8", 500, "po_2")
        paid(connection, "P08", "ch_3", 3_000)
        captured = paid(connection, "P09", "ch_9", 900)
    reverse(database, "default", captured, effective_at=date(2026, 1, 31), why="bounced", now=NOW)
    with database.begin() as connection:
        done = reconcile(connection, [row for row in ROWS if row[1] in {"txn_1", "txn_2", "txn_6", "txn_7"}])
        assert outcomes(done) == {"matched": ["ch_1"], "unmatched_in_file": ["ch_3", "ch_9"], "mismatched": ["pi_2"]}
        assert balances(connection, CLEARING, by="dimension") == {"po_2": 6_500, "pending": 3_000}
        assert store.flags(connection, "default")["reason"].to_list()[0] == "payout differs, found by reference"


def test_a_payment_is_settled_once(database: sa.Engine) -> None:
    """Whoever writes: no second payout has an entry, and nothing of a result ever changes."""
    with database.begin() as connection:
        payments(connection)
        reconcile(connection, ROWS)
    for statement, message in {
        "INSERT INTO settled_entries SELECT tenant, entry_id, currency, dimension, 'po_9', 'x' FROM settled_entries": "settled_entries_pkey",
        "DELETE FROM settled_entries": "a payment is settled once",
        "UPDATE settlement_matches SET outcome = 'matched'": "a result never changes; reconcile again",
    }.items():
        with pytest.raises(sa.exc.DBAPIError, match=message), database.begin() as connection:
            connection.exec_driver_sql(statement)


def test_a_file_of_a_bank_is_read_by_a_mapping() -> None:
    """Columns by name, amounts exactly by the currency's decimals, faults kept with their rows; none is lost."""
    mapping = parse_mapping(
        "{reference: [ref, memo], gross: paid, fee: costs, currency: ccy, date: day, customer: who, separator: ';'}",
        "m.yaml",
    )
    text = (
        "ref;memo;paid;costs;ccy;day;who\na;;1.5;0.05;USD;2026-01-31;UA\nb;x;1500;;jpy;2026-01-31;\nc;;1.5;0;JPY;2026-01-31;\n"
        "d;;2;0;USD;tomorrow;\ne;;;;USD;2026-01-31;\nf;;2;0;XXX;2026-01-31;\ng;;1.234;1.0;KWD;2026-01-31;\n"
    )
    rows = settlement_rows(text, "bank.csv", mapping, payout="any").rows
    assert not is_stripe(text)
    assert is_stripe(report(ROWS))
    assert rows.select("reference", "gross_minor", "fee_minor", "net_minor", "fault").rows() == [
        ("a", 150, 5, 145, ""), ("b", 1500, 0, 1500, ""), ("c", None, None, None, "gross 1.5 is no amount of JPY"),
        ("d", None, None, None, "the date is none"), ("e", None, None, None, "there is no gross amount"),
        ("f", None, None, None, "currency XXX is not known"), ("g", 1234, 1000, 234, ""),
    ]  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"bank.csv: paid: not there: allowed: a column for gross; there are"):
        settlement_rows("ref;memo;costs;ccy;day;who\n", "bank.csv", mapping, payout="any")
    with pytest.raises(ConfigurationError, match=r"m.yaml: gross: missing"):
        parse_mapping("{reference: a, currency: c, date: d}", "m.yaml")
