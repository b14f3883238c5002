"""The quick judge of a stretch against the slow one, over books that somebody changed."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invoicing.ledger.chain import chained, hash_texts
from invoicing.ledger.chain import content_digests as slow_digests
from invoicing.ledger.documents import Document, frames_of
from invoicing.ledger.journal import ID_PARTS, entries_of
from invoicing.ledger.sound import follows, may_be_late, place_after, sound
from invoicing.ledger.verify import Place, end_of, first_finding
from schemas.identity import digests, sha256_of
from schemas.journal import GENESIS
from tests.simulation.documents import EXAMPLES, document
from tests.simulation.stretches import DIGESTS, stretch_of

NOW = datetime(2026, 2, 1, 12, tzinfo=UTC)
TENANT = "größe"

texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=9)
numbers = st.integers(-3, 3) | st.sampled_from((-(2**63), 2**63 - 1, 10**18, 999, 1000))
ENTRY_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "template": st.sampled_from((*EXAMPLES, "P31", "P99", "")),
    "document_kind": st.sampled_from(("invoice", "reversal", "reversals", "")),
    "document_id": texts, "description": texts,
    "document_version": st.integers(-(2**31), 2**31 - 1), "part": st.integers(-(2**31), 2**31 - 1),
    "relates_to": st.just("a" * 32), "relates_to_period": st.sampled_from(("2025-12", "")),
    "effective_at": st.dates(date(1, 1, 1), date(9999, 12, 31)),
    "booked_at": st.integers(-2, 2).map(lambda micros: NOW + timedelta(microseconds=micros)),
    "sequence": st.integers(-1, 9),
    **{name: st.sampled_from(("0" * 64, "f" * 64)).map(lambda text, n=name: text[:32] if n == "id" else text)
       for name in DIGESTS},
}  # fmt: skip
LINE_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "sequence": st.integers(-1, 9), "position": st.integers(-(2**15), 2**15 - 1),
    "account": st.sampled_from((1100, 4010, 2000, -5, 32767)), "amount_minor": numbers, "customer": texts, "dimension": texts,
    "currency": st.sampled_from(("USD", "EUR", "", "EURO", "a currency that is none")),
}  # fmt: skip
changes = st.lists(
    st.one_of(
        *[st.tuples(st.just("entry"), st.just(name), st.integers(0, 99), new) for name, new in ENTRY_VALUES.items()],
        *[st.tuples(st.just("line"), st.just(name), st.integers(0, 99), new) for name, new in LINE_VALUES.items()],
        st.tuples(
            st.sampled_from(("drop entry", "drop line", "swap lines")), st.just(""), st.integers(0, 99), st.none()
        ),
    ),
    max_size=3,
)
WHOLE = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def books(codes: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    documents = [Document.model_validate(document(code, f"ü{place}")) for place, code in enumerate(codes)]
    journal = entries_of(*frames_of(documents, TENANT), booked_at=NOW)
    placed = chained(journal.entries, after=0, previous_hash=GENESIS, booked_from=None)
    placed = placed.with_columns(pl.col("relates_to", "relates_to_period").fill_null(""))
    lines = journal.postings.join(placed.select("sequence", entry_id="id"), on="entry_id", maintain_order="left")
    return placed, lines.drop("entry_id")


def changed(frame: pl.DataFrame, name: str, row: int, value: Any) -> pl.DataFrame:
    values = frame[name].to_list()
    values[row % len(values)] = value
    return frame.with_columns(pl.Series(name, values, frame.schema[name]))


def tampered(entries: pl.DataFrame, lines: pl.DataFrame, what: list[Any]) -> tuple[pl.DataFrame, pl.DataFrame]:
    for kind, name, row, value in what:
        if kind == "entry":
            entries = changed(entries, name, row, value)
        elif kind == "line" and lines.height:
            lines = changed(lines, name, row, value)
        elif kind == "drop entry" and entries.height > 1:
            entries = entries.with_row_index().filter(pl.col("index") != row % entries.height).drop("index")
        elif kind == "drop line" and lines.height > 1:
            lines = lines.with_row_index().filter(pl.col("index") != row % lines.height).drop("index")
        elif kind == "swap lines":
            lines = lines.reverse()
    return entries, lines.sort("sequence", maintain_order=True)


def forged(entries: pl.DataFrame, lines: pl.DataFrame) -> pl.DataFrame:
    """The entries with ids, digests and hashes made anew, as somebody with a superuser's rights might."""
    first = entries["sequence"][0]
    placed = lines.with_columns((pl.col("sequence") - first).alias("entry"))
    if not placed["entry"].is_between(0, entries.height - 1).all():
        return entries
    entries = entries.with_columns(
        slow_digests(entries, placed).alias("content_digest"),
        digests(*[pl.col(name).cast(pl.String) for name in ID_PARTS]).alias("id"),
    )
    before, rows = entries["previous_hash"][0], []
    for row in range(entries.height):
        one = entries[row].with_columns(pl.lit(before).alias("previous_hash"))
        rows.append(one.with_columns(one.select(sha256_of(hash_texts(one))).to_series().alias("hash")))
        before = rows[-1]["hash"][0]
    return pl.concat(rows)


@given(st.lists(st.sampled_from(list(EXAMPLES)), min_size=1, max_size=6, unique=True), changes, st.booleans())
@WHOLE
def test_the_quick_judge_agrees_with_the_slow_one(codes: list[str], what: list[Any], forge: bool) -> None:
    """What passes the one has no finding of the other, and what has none passes: with the chain made anew, and without."""
    entries, lines = tampered(*books(codes), what)
    if forge:
        entries = forged(entries, lines)
    stretch = stretch_of(TENANT, entries, lines)
    passes = sound(stretch) and follows(stretch.entries, Place())
    assert passes == (first_finding(*stretch.frames(), Place()) is None)
    assert stretch.frames()[1].equals(lines.select(stretch.frames()[1].columns))
    if passes:
        assert place_after(stretch.entries) == end_of(entries)
    if not what:
        assert passes


def test_a_stretch_follows_the_one_before_in_all_three_respects() -> None:
    """By its sequence, by the hash that it names, and by the instant; a closed day is for the slow judge to tell."""
    entries, lines = books(["P09", "P29"])
    stretch, place = stretch_of(TENANT, entries, lines), Place()
    assert follows(stretch.entries, place)
    assert not follows(stretch.entries, Place(1, place.hash, None))
    assert not follows(stretch.entries, Place(0, "f" * 64, None))
    assert follows(stretch.entries, Place(0, place.hash, NOW))
    assert not follows(stretch.entries, Place(0, place.hash, NOW + timedelta(microseconds=1)))
    day = entries["effective_at"][0]
    assert not may_be_late(stretch.entries, [])
    assert may_be_late(stretch.entries, [Closing(day, 1)])
    assert not may_be_late(stretch.entries, [Closing(day, 2)])
    assert not may_be_late(stretch.entries, [Closing(day - timedelta(days=1), 0)])


class Closing:
    """A closed period."""

    def __init__(self, through: date, after_sequence: int) -> None:
        self.through, self.after_sequence = through, after_sequence


@pytest.mark.parametrize("name", [*ENTRY_VALUES, *LINE_VALUES])
def test_no_column_can_be_changed_unseen(name: str) -> None:
    """Each column of an entry and of a posting, changed by itself, is told by both judges."""
    entries, lines = books(["P09", "P26", "P29"])
    instants = {"booked_at": NOW + timedelta(1), "effective_at": NOW.date()}
    for of_entry, frame in ((True, entries), (False, lines)):
        if name not in frame.columns or (of_entry and name == "sequence"):
            continue
        value = frame[name][1]
        new = instants.get(name) or (value + 1 if isinstance(value, int) else "e" * (len(value) or 3))
        other = changed(frame, name, 1, new)
        frames = (other, lines) if of_entry else (entries, other.sort("sequence", maintain_order=True))
        stretch = stretch_of(TENANT, *frames)
        assert not sound(stretch), (name, value, new)
        assert first_finding(*stretch.frames(), Place())
