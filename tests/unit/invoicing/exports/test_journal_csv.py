"""Journals as accounting programs import them: the very text, whole entries to a file, and nothing that computes."""

import csv
import io
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing.exports.cells import plain
from invoicing.exports.journal_csv import DIALECTS, csv_text
from invoicing.exports.journal_lines import SUMMARIES, Summary, faults_of_lines, files, journals, lines_of
from invoicing.exports.mapping import Mapping, parse_mapping
from invoicing.exports.totals import Totals
from invoicing.ledger.chain import chained
from invoicing.ledger.documents import POSTABLE, Document, frames_of
from invoicing.ledger.journal import entries_of
from schemas.journal import GENESIS, Account
from tests.simulation.documents import EXAMPLES, document

RULES = "".join(f"  - {{account: {each.value}, name: 'Books:{each.title}'}}\n" for each in Account)
CUSTOMERS = "  - {account: 1100, currency: EUR, name: Accounts Receivable (A/R), entity_is_customer: true}\n"
Stretch = tuple[pl.DataFrame, pl.DataFrame]


def mapping_of(system: str, more: str = "", rules: str = RULES + CUSTOMERS) -> Mapping:
    return parse_mapping(f"system: {system}\n{more}\naccounts:\n{rules}", "mapping.yaml", system)


def stretch(*documents: dict[str, Any]) -> Stretch:
    """A chain of these documents, and its postings as the store gives them."""
    given_documents = [Document.model_validate(each) for each in documents]
    journal = entries_of(*frames_of(given_documents, "default"), booked_at=datetime(2026, 2, 1, tzinfo=UTC))
    entries = chained(journal.entries, after=0, previous_hash=GENESIS, booked_from=None)
    ids = entries.select("sequence", entry_id="id")
    return entries, journal.postings.join(ids, on="entry_id", maintain_order="left").drop("entry_id")


def texts(stretches: list[Stretch], mapping: Mapping, summary: Summary, lines_max: int) -> list[str]:
    """The files of an export."""
    parts = files(journals(iter(stretches), mapping, summary, lines_max), lines_max)
    return [csv_text(part, mapping) for part in parts]


def sums_of(found: list[str], mapping: Mapping) -> Counter[tuple[str, str, str]]:
    """What the debits and credits of CSV files add up to, by currency and account; every journal of them balances."""
    names = DIALECTS[mapping.system].columns
    sums: Counter[tuple[str, str, str]] = Counter()
    journal_sums: Counter[str] = Counter()
    for text in found:
        for row in csv.DictReader(io.StringIO(text)):
            currency, account = row[names["currency"]], row[names["name"]]
            debit, credit = (Decimal(row[names[side]] or 0) for side in ("debit", "credit"))
            assert (debit > 0) != (credit > 0), row
            sums[currency, account, "debit"] += debit
            sums[currency, account, "credit"] += credit
            journal_sums[row[names["number"]] + " " + currency] += debit - credit
    assert not any(journal_sums.values())
    assert len({key.split(" ")[0] for key in journal_sums}) == len(journal_sums), "a journal has one currency"
    return sums


def test_the_very_text_for_quickbooks() -> None:
    """An invoice, a payment of a name that would compute, and a foreign payment as two journals that each balance."""
    given_stretch = stretch(
        document("P02", "inv-1", customer='Smith, "Sons"', description="Invoice for 2026-01"),
        document("P09", "pay-1", customer="=HYPERLINK(1)", description="+1   paid"),
        document("P26", "pay-2"),
    )
    [text] = texts([given_stretch], mapping_of("quickbooks"), "entry", 1000)
    assert text.split("\r\n") == [
        "JournalNo,JournalDate,Currency,Memo,AccountName,Debits,Credits,Description,Name,Class",
        'ML-1,01/31/2026,EUR,Invoice for 2026-01,Accounts Receivable (A/R),120.00,,P02 inv-1,"Smith, ""Sons""",',
        "ML-1,01/31/2026,EUR,Invoice for 2026-01,Books:usage revenue,,70.00,P02 inv-1,,",
        "ML-1,01/31/2026,EUR,Invoice for 2026-01,Books:unbilled receivable,,30.00,P02 inv-1,,",
        "ML-1,01/31/2026,EUR,Invoice for 2026-01,Books:tax payable,,20.00,P02 inv-1 / VAT 20%,,",
        "ML-2,01/31/2026,EUR,'+1 paid,Books:gateway clearing,120.00,,P09 pay-1 / po_1,,",
        "ML-2,01/31/2026,EUR,'+1 paid,Accounts Receivable (A/R),,120.00,P09 pay-1,'=HYPERLINK(1),",
        "ML-3-EUR,01/31/2026,EUR,foreign payment settled: pay-2,Books:gateway clearing,100.00,,P26 pay-2,,",
        "ML-3-EUR,01/31/2026,EUR,foreign payment settled: pay-2,Accounts Receivable (A/R),,100.00,P26 pay-2,UA,",
        "ML-3-USD,01/31/2026,USD,foreign payment settled: pay-2,Books:cash,109.12,,P26 pay-2,,",
        "ML-3-USD,01/31/2026,USD,foreign payment settled: pay-2,Books:receivable,,108.37,P26 pay-2,,",
        "ML-3-USD,01/31/2026,USD,foreign payment settled: pay-2,Books:FX realised,,0.75,P26 pay-2,,",
        "",
    ]


def test_the_very_text_for_netsuite_summed_by_month() -> None:
    """Debits and credits of an account stand apart, currencies too; the subsidiary is on every line."""
    more = "{subsidiary: 'Parent : Inc', date_format: YYYY-MM-DD, number_prefix: M}"
    given_stretch = stretch(
        document("P02", "1", effective_at="2026-01-05"), document("P02", "2", effective_at="2026-01-31"),
        document("P09", "3", effective_at="2026-01-07"), document("P27", "4", effective_at="2026-02-01"),
    )  # fmt: skip
    head = "External ID,Date,Subsidiary,Currency,Memo," + ",".join(
        f"Journal Entry - Line: {name}" for name in ("Account", "Debit", "Credit", "Memo", "Name", "Class")
    )
    january, february = "2026-01-31,Parent : Inc,EUR,Meterline 2026-01", "2026-02-28,Parent : Inc"
    [text] = texts([given_stretch], mapping_of("netsuite", more.strip("{}").replace(", ", "\n")), "month", 1000)
    assert text.splitlines() == [
        head,
        f"M20260131-EUR,{january},Accounts Receivable (A/R),240.00,,,UA,",
        f"M20260131-EUR,{january},Accounts Receivable (A/R),,120.00,,UA,",
        f"M20260131-EUR,{january},Books:gateway clearing,120.00,,,,",
        f"M20260131-EUR,{january},Books:tax payable,,40.00,,,",
        f"M20260131-EUR,{january},Books:unbilled receivable,,60.00,,,",
        f"M20260131-EUR,{january},Books:usage revenue,,140.00,,,",
        f"M20260228-EUR,{february},EUR,Meterline 2026-02,Books:FX position,100.00,,,,",
        f"M20260228-EUR,{february},EUR,Meterline 2026-02,Books:cash,,100.00,,,",
        f"M20260228-USD,{february},USD,Meterline 2026-02,Books:FX position,,110.00,,,",
        f"M20260228-USD,{february},USD,Meterline 2026-02,Books:FX realised,0.50,,,,",
        f"M20260228-USD,{february},USD,Meterline 2026-02,Books:cash,110.00,,,,",
        f"M20260228-USD,{february},USD,Meterline 2026-02,Books:cash,,0.50,,,",
    ]


def test_a_file_holds_whole_journals_and_a_summary_that_is_full_goes_on_in_another() -> None:
    """No file has more lines than it may, no journal is in two files, and each part of a summary balances."""
    stretches = [stretch(*[document("P02", str(number), customer=f"C{number}") for number in range(20)])]
    mapping = mapping_of("quickbooks")
    by_entry = texts(stretches, mapping, "entry", 10)
    assert [text.count("\r\n") - 1 for text in by_entry] == [8] * 10
    summed = texts(stretches, mapping, "day", 12)
    numbers = [{row["JournalNo"] for row in csv.DictReader(io.StringIO(text))} for text in summed]
    assert numbers == [{"ML-20260131-EUR"}, {"ML-20260131-EUR-2"}, {"ML-20260131-EUR-3"}, {"ML-20260131-EUR-4"}]
    assert all(text.count("\r\n") - 1 <= 12 for text in summed)
    assert sums_of(summed, mapping) == sums_of(by_entry, mapping)


def test_what_the_program_could_not_take_is_told() -> None:
    """An account without a rule, a receivable of nobody, a third decimal, an amount of eleven digits, a long entry."""
    rules = "".join(line for line in RULES.splitlines(keepends=True) if "unbilled" not in line) + CUSTOMERS
    entries, postings = stretch(
        document("P02", "1"), document("P09", "2", customer=""),
        document("P29", "3", currency="KWD", amounts={"total": "1.255", "fee": "1.255"}),
        document("P29", "4", currency="KWD", amounts={"total": "1.250", "fee": "1.250"}),
        document("P29", "5", amounts={"total": "10000000000", "fee": "10000000000"}),
    )  # fmt: skip
    mapping = mapping_of("netsuite", rules=rules)
    assert faults_of_lines(lines_of(entries, postings, mapping), mapping, 3) == {
        "accounts without a rule in the mapping": ["1150 unbilled receivable"],
        'lines that must name a customer and have none; give such a line a rule of `customer: ""`': ["entry 2 (1100)"],
        "amounts that two decimals cannot hold": ["entry 3 (KWD)"],
        "amounts that are too great": ["entry 5 (EUR)"],
        "entries of more than 3 lines; a greater lines_max lets them in": ["ML-1 (4)"],
    }


@given(st.text(max_size=12))
def test_no_text_computes_whatever_it_is(text: str) -> None:
    """Not in a spreadsheet, and not by a tab, a line end or a character of no width before the sign."""
    text = text.encode("utf-8", "ignore").decode()
    for start in ("", "=", "\t=", " +", "\u200b-", "\r\n@", "\uff1d"):
        cell = pl.select(plain(pl.lit(start + text), 50)).item() or ""
        assert cell[:1] not in {*"=+-@\t\r\n \u200b\uff1d"} or not cell
        assert not {*cell} & {*"\t\r\n\x00\u202e"}


documents = st.lists(
    st.tuples(st.sampled_from(sorted(POSTABLE)), st.integers(1, 28), st.sampled_from(("UA", "B6", "=AA"))), max_size=12
)


@given(documents, st.sampled_from(SUMMARIES), st.sampled_from(("quickbooks", "netsuite")), st.integers(1, 12))
@settings(max_examples=40)
def test_the_files_add_up_to_the_ledger(
    given_documents: list[tuple[str, int, str]], summary: Summary, system: str, cut: int
) -> None:
    """Any ledger, however it is cut and summed: by currency and account, the CSV has the ledger's debits and credits."""
    entries, postings = stretch(
        *[document(code, str(place), customer=customer, effective_at=f"2026-01-{day:02d}")
          for place, (code, day, customer) in enumerate(given_documents)]
    )  # fmt: skip
    stretches = [
        (part, postings.join(part.select("sequence"), on="sequence", how="semi", maintain_order="left"))
        for part in entries.iter_slices(cut)
        if part.height
    ]
    mapping = mapping_of(system)
    totals = Totals()
    for part, lines in stretches:
        totals.add(part, lines_of(part, lines, mapping))
    wanted: Counter[tuple[str, str, str]] = Counter()
    for row in totals.document()["accounts"]:
        for side in ("debit", "credit"):
            wanted[row["currency"], row["name"], side] += Decimal(row[side])
    assert sums_of(texts(stretches, mapping, summary, 9), mapping) == wanted
    assert (totals.entries, totals.postings) == (entries.height, postings.height)
    assert set(EXAMPLES) >= {code for code, _, _ in given_documents}
