"""Laws of burning: it agrees with a loop over invoices and lots, and never takes more than there is, or is due."""

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing.wallets.lots import INVOICES, LOTS, WANTED, burned, expired, moves, returned

NOW = datetime(2026, 1, 10, tzinfo=UTC)
CUSTOMERS = ("AA", "UA")

lots = st.lists(
    st.tuples(
        st.sampled_from(CUSTOMERS), st.sampled_from(("paid", "promotional")), st.integers(0, 2), st.integers(1, 60),
        st.integers(-2, 2), st.none() | st.integers(-1, 3), st.integers(0, 60),
    ), max_size=8,
)  # fmt: skip
invoices = st.lists(st.tuples(st.sampled_from((*CUSTOMERS, "ZZ")), st.integers(-5, 90)), max_size=6)


def lots_frame(rows: list[tuple[str, str, int, int, int, int | None, int]]) -> pl.DataFrame:
    made = [
        (f"lot {place}", customer, customer, "USD", kind, priority, granted, NOW + timedelta(days=since - 1),
         None if until is None else NOW + timedelta(days=until), 3, min(held, granted))
        for place, (customer, kind, priority, granted, since, until, held) in enumerate(rows)
    ]  # fmt: skip
    return pl.DataFrame(made, schema=LOTS, orient="row")


def invoices_frame(rows: list[tuple[str, int]]) -> pl.DataFrame:
    made = [(f"invoice {place}", customer, "USD", due) for place, (customer, due) in enumerate(rows)]
    return pl.DataFrame(made, schema=INVOICES, orient="row")


def burned_slowly(owed: pl.DataFrame, known: pl.DataFrame) -> list[tuple[str, str, int]]:
    """One invoice after the other, one lot after the other."""
    far = NOW + timedelta(days=9_999)
    held = {row["id"]: row["balance_minor"] for row in known.iter_rows(named=True)}
    pieces = []
    for invoice in owed.sort("invoice_id").iter_rows(named=True):
        due = invoice["due_minor"]
        for row in sorted(
            known.iter_rows(named=True), key=lambda row: (row["priority"], row["expires_at"] or far, row["id"])
        ):
            alive = row["granted_at"] <= NOW < (row["expires_at"] or far)
            part = min(due, held[row["id"]]) if alive and row["customer"] == invoice["customer"] else 0
            if part > 0:
                pieces.append((row["id"], invoice["invoice_id"], -part))
                held[row["id"]] -= part
                due -= part
    return pieces


@given(invoices, lots)
@settings(max_examples=120)
def test_burning_is_what_a_loop_does_and_never_goes_below_zero(
    owed: list[tuple[str, int]], held: list[tuple[str, str, int, int, int, int | None, int]]
) -> None:
    """Law I13: the same pieces in the same order; no balance below zero, no invoice paid more than is due."""
    due, known = invoices_frame(owed), lots_frame(held)
    wanted = burned(due.sample(fraction=1, shuffle=True, seed=7), known.reverse(), NOW)
    pieces = wanted.select("lot_id", "invoice_id", "amount_minor").rows()
    slow = burned_slowly(due, known)
    assert sorted(pieces) == sorted(slow)
    for customer in CUSTOMERS:
        own = set(known.filter(pl.col("customer") == customer)["id"])
        assert [piece for piece in pieces if piece[0] in own] == [piece for piece in slow if piece[0] in own]
    made = moves(wanted, known)
    assert (made["balance_minor"] >= 0).all()
    assert (made["balance_minor"] <= made["granted_minor"]).all()
    paid = made.group_by("invoice_id").agg(-pl.col("amount_minor").sum()).join(due, on="invoice_id")
    assert (paid["amount_minor"] <= paid["due_minor"]).all()


@given(lots, st.integers(1, 200))
@settings(max_examples=60)
def test_what_comes_back_is_what_was_taken(
    held: list[tuple[str, str, int, int, int, int | None, int]], wish: int
) -> None:
    """A return adds up, gives no lot more than it gave, and fills the last burned first; a whole one undoes the burn."""
    known = lots_frame(held)
    burns = burned(invoices_frame([("UA", 100)]), known, NOW).with_columns(-pl.col("amount_minor"))
    whole = burns["amount_minor"].sum()
    if not whole:
        return
    amount = min(wish, whole)
    back = returned(burns, "invoice 0", amount, "note")
    assert back["amount_minor"].sum() == amount
    taken = dict(burns.select("lot_id", "amount_minor").rows())
    given_back = dict(back.select("lot_id", "amount_minor").rows())
    assert all(0 < minor <= taken[lot_id] for lot_id, minor in given_back.items())
    order = burns["lot_id"].to_list()
    assert list(given_back) == order[::-1][: len(given_back)]
    assert all(given_back[lot_id] == taken[lot_id] for lot_id in list(given_back)[:-1])


@given(lots)
@settings(max_examples=40)
def test_what_expires_is_what_is_left_of_what_cannot_burn_any_more(
    held: list[tuple[str, str, int, int, int, int | None, int]],
) -> None:
    """Each lot that was put in either can burn, or expires, or is empty."""
    known = lots_frame(held)
    gone = expired(known, NOW)
    assert gone.columns == list(WANTED)
    after = {row["id"]: row for row in known.iter_rows(named=True)}
    for lot_id, minor in gone.select("lot_id", "amount_minor").rows():
        assert after[lot_id]["expires_at"] <= NOW
        assert after[lot_id]["balance_minor"] == -minor
    kept = known.filter(~pl.col("id").is_in(gone["lot_id"].to_list()))
    assert kept.filter((pl.col("expires_at") <= NOW) & (pl.col("balance_minor") > 0)).is_empty()
