"""Laws of matching: each row and entry has one outcome, whatever order they come in, and the sums agree."""

from collections import Counter
from datetime import date, timedelta
from random import Random

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing.reconciliation.matching import ENTRIES, MATCHES, REFERENCES, ROWS, reconcile

DAY = date(2026, 1, 31)
references = st.sampled_from(("", "ch_1", "ch_2", "pi_1"))
days = st.integers(-4, 4).map(lambda shift: DAY + timedelta(days=shift))
amounts = st.sampled_from((100, 250, -100, 5))
common = (st.sampled_from(("", "UA")), st.sampled_from(("USD", "EUR")), amounts)
rows = st.lists(
    st.tuples(references, references, st.sampled_from(("payment", "payment", "fee")), *common, st.integers(0, 3),
              st.integers(0, 5).map(lambda chance: int(chance == 0)), days,
              st.integers(0, 6).map(lambda chance: "" if chance else "the date is none")),
    max_size=10,
)  # fmt: skip
payouts = st.sampled_from(("", "", "po", "other"))
entries = st.lists(st.tuples(references, *common, days, payouts), max_size=10)
Rows = list[tuple[str, str, str, str, str, int, int, int, date, str]]
Entries = list[tuple[str, str, str, int, date, str]]


def rows_frame(listed: Rows) -> pl.DataFrame:
    made = [
        (one, two, "", "", kind, customer, currency, gross, fee, gross - fee + wrong, day, fault)
        for one, two, kind, customer, currency, gross, fee, wrong, day, fault in listed
    ]
    return pl.DataFrame(made, schema=ROWS, orient="row")


def entries_frame(listed: Entries) -> pl.DataFrame:
    made = [
        (f"entry {place}", reference, customer, currency, payout, minor, day)
        for place, (reference, customer, currency, minor, day, payout) in enumerate(listed)
    ]
    return pl.DataFrame(made, schema=ENTRIES, orient="row")


@given(rows, entries)
@settings(max_examples=60)
def test_each_row_and_each_entry_has_one_outcome_and_sums_agree(listed: Rows, known: Entries) -> None:
    """Nothing is lost, nothing counts twice; what is matched is equal on both sides, and pays gross less fee."""
    matches = reconcile(rows_frame(listed), entries_frame(known), payout="po").matches
    assert matches.columns == list(MATCHES)
    of_rows, of_entries = matches["file_row"].drop_nulls(), matches["entry_id"].drop_nulls()
    assert of_rows.len() == of_rows.n_unique() == len(listed)
    own_entries = {f"entry {place}" for place, entry in enumerate(known) if entry[-1] != "other"}
    assert of_entries.len() == of_entries.n_unique()
    assert own_entries <= set(of_entries)
    assert set(matches.filter(pl.col("dimension") == "other")["outcome"]) <= {"mismatched"}
    assert matches["id"].n_unique() == matches.height
    own = Counter(row[5] for row in listed)
    assert Counter(matches.filter(pl.col("file_row").is_not_null())["gross_minor"]) == own
    matched = matches.filter(pl.col("outcome") == "matched")
    assert (matched["gross_minor"] - matched["fee_minor"] == matched["net_minor"]).all()
    paired = matched.filter(pl.col("entry_id").is_not_null())
    assert (paired["gross_minor"] == paired["ledger_minor"]).all()
    for outcome, reason in matches.select("outcome", "reason").rows():
        assert reason, outcome


@given(rows, entries, st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_order_changes_nothing(listed: Rows, known: Entries, chance: Random) -> None:
    """The digest of the answer is the same for rows and entries in any order, and twice."""
    frames = rows_frame(listed), entries_frame(known)
    first = reconcile(*frames, payout="po")
    order = list(range(len(listed))), list(range(len(known)))
    for places in order:
        chance.shuffle(places)
    shuffled = [frame[places] if places else frame for frame, places in zip(frames, order, strict=True)]
    again = reconcile(*shuffled, payout="po")
    assert again.digest == first.digest
    assert again.matches.equals(first.matches)


@given(entries, st.integers(0, 3))
@settings(max_examples=30)
def test_a_file_that_says_what_the_books_say_matches_whole(known: Entries, fee: int) -> None:
    """Rows made from the entries, each by its reference or by what it is, leave nothing over."""
    made = [
        (reference, "", "", "", "payment", customer, currency, minor, fee, minor - fee, day, "")
        for reference, customer, currency, minor, day, payout in known
        if payout != "other"
    ]
    own = [entry for entry in known if entry[-1] != "other"]
    matches = reconcile(pl.DataFrame(made, schema=ROWS, orient="row"), entries_frame(own), payout="po").matches
    assert matches["outcome"].to_list() == ["matched"] * len(own)
    assert len(REFERENCES) == 4
