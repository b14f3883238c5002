"""Laws of usage for rating, over the real engine: rollups with events at their edges rate as the events themselves."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregation.batch import Cutter
from aggregation.dedup import DedupIndex
from aggregation.fold_batch import PartitionState, fold_batch
from aggregation.plan import SubjectRange
from aggregation.store import metered_usage, store_batch
from meterline.rating_run import rated_in_chunks
from rating.books import Books
from rating.combining import combined
from rating.rater import Basis, Rated, Rater
from schemas.charge import INSTANT
from schemas.log import Barrier, Configure, Flush, LogConfig, Record, Records, punctuation_key
from schemas.meter import Aggregation, Meter
from schemas.money import QUANTITY
from schemas.wanted import Want, together
from stores.clickhouse import Client
from tests.oracles.rating.kinds import Event
from tests.simulation.rating_cases import decimal, usage_of
from tests.strategies.rating import AGGREGATIONS, RatingCase, rating_cases

METERS = tuple(
    Meter(
        slug=slug, event_type=slug, aggregation=Aggregation(kind), group_by={"region": "$.region", "size": "$.size"},
        value_property=None if kind == "COUNT" else "$.value",
    )
    for slug, kind in AGGREGATIONS.items()
)  # fmt: skip
VERSIONS = {0: LogConfig(), 1: LogConfig(meters=METERS)}
CUT = 1


def line(event: Event, tenant: str) -> bytes:
    text = event.value if isinstance(event.value, str) else format(decimal(event.value), "f")
    return json.dumps(
        {
            "specversion": "1.0", "source": "/s", "id": str(event.position), "type": event.meter, "tenant": tenant,
            "subject": event.subject, "time": event.at.isoformat(), "data": {**event.dimensions, "value": text},
        }
    ).encode()  # fmt: skip


def store(client: Client, events: list[Event], tenant: str, every: int) -> None:
    """Fold and store the events in the order of their positions, some a record; and others behind the cut."""
    log_id = uuid.uuid4().hex
    lines = [line(event, tenant) for event in sorted(events, key=lambda event: event.position)]
    values: list[Any] = [b"\n".join(lines[at : at + every]) for at in range(0, len(lines), every)]
    late = [
        line(Event(each.subject, each.meter, each.at, each.value, {}, each.position + 1000), tenant) for each in events
    ]
    steps = [Configure(1, log_id), *values, Barrier(CUT), *([b"\n".join(late)] if late else []), Flush()]
    records = [
        Record(offset, offset, None, step)
        if isinstance(step, bytes)
        else Record(offset, offset, punctuation_key(step), None)
        for offset, step in enumerate(steps)
    ]
    state, index = PartitionState(0), DedupIndex(35)
    for batch in Cutter(0, 0, VERSIONS.__getitem__).cut(Records.of(records)):
        folded = fold_batch(batch, state, index, VERSIONS.__getitem__)
        index.add(folded.hashes, folded.days)
        store_batch(client, folded)
        state = folded.state


def carried_of(case: RatingCase) -> pl.DataFrame:
    return pl.DataFrame(
        [(customer, charge, "", 0, decimal(level)) for (customer, charge, _), level in case.carried.items()],
        schema={"customer": pl.String, "charge": pl.String, "group": pl.String, "cell": pl.Int32, "quantity": QUANTITY},
        orient="row",
    )


def rated(case: RatingCase, rater: Rater, usage: pl.DataFrame) -> Rated:
    return rater.rate(usage, carried=carried_of(case), prepaid=case.credits)


def in_chunks(case: RatingCase, rater: Rater, client: Client, tenant: str) -> Iterator[Rated]:
    """One contract at a time, then two ranges of subjects."""
    return rated_in_chunks(
        rater,
        lambda wants, subjects: metered_usage(client, VERSIONS.__getitem__, tenant, METERS, wants, CUT, subjects),
        lambda _wants, _count: [SubjectRange(None, "c"), SubjectRange("c", None)],
        contracts_at_once=1,
        carried=carried_of(case),
        prepaid=case.credits,
    )


START = datetime(2024, 3, 9, 12, tzinfo=UTC)
instants = st.integers(0, 60 * 60 * 12).map(lambda fives: START + timedelta(seconds=5 * fives))  # two and a half days
cuts = st.lists(st.one_of(instants, instants.map(lambda at: at.replace(minute=0, second=0))), min_size=2, max_size=5)
asked = st.builds(
    lambda meter, cuts, window, events, dimensions: Want(meter, tuple(sorted(set(cuts))), window, events, dimensions),
    st.sampled_from([*AGGREGATIONS]), cuts.filter(lambda found: len(set(found)) > 1),
    st.sampled_from([None, "minute", "hour", "day"]), st.booleans(), st.sampled_from([(), ("region",), ("region", "size")]),
)  # fmt: skip
used = st.lists(
    st.tuples(st.sampled_from(["a", "é"]), st.sampled_from([*AGGREGATIONS]), instants, st.integers(-3, 9), st.sampled_from(["eu", None])),
    min_size=30, max_size=60,
)  # fmt: skip
WIDTH_S = {"minute": 60, "hour": 3600, "day": 86_400}


def row_of(at: datetime, want: Want) -> datetime:
    """Where the row begins that has usage of an instant."""
    if want.events:
        return at
    width = timedelta(seconds=WIDTH_S.get(want.window or "", 0))
    window = at - (at - datetime(1970, 1, 1, tzinfo=UTC)) % width if width else want.cuts[0]
    return max(*(cut for cut in want.cuts if cut <= at), window, want.cuts[0])


def values(usage: pl.DataFrame) -> Any:
    dimensions = pl.col("dimension.region", "dimension.size").fill_null("")
    kinds = usage.with_columns(dimensions, aggregation=pl.col("meter").replace_strict(AGGREGATIONS))
    keys = ["subject", "meter", "at", "dimension.region", "dimension.size"]
    return combined(kinds, keys).sort(keys).rows()


@settings(suppress_health_check=[*HealthCheck], max_examples=15, deadline=None)
@given(events=used, wants=st.lists(asked, min_size=4, unique_by=lambda want: want.meter), every=st.integers(1, 30))
def test_rows_are_what_is_used_between_cuts_and_in_windows(
    events: list[Any], wants: list[Want], every: int, clickhouse: Client
) -> None:
    """A row begins where a cut, a window or a single event does, and has the usage from there to the next, by dimension."""
    tenant = uuid.uuid4().hex
    happened = [
        Event(subject, meter, at, f"u{value}" if meter == "users" else Fraction(1 if meter == "calls" else value),
              {"region": region} if region else {}, position)
        for position, (subject, meter, at, value, region) in enumerate(events)
    ]  # fmt: skip
    store(clickhouse, happened, tenant, every)
    found = metered_usage(clickhouse, VERSIONS.__getitem__, tenant, METERS, wants, CUT)
    none = [pl.lit(None, pl.String).alias(f"dimension.{name}") for name in ("region", "size")]
    found = found.with_columns(each for each in none if each.meta.output_name() not in found.columns)
    expected, begins = [], []
    for want in wants:
        for each in happened:
            if each.meter == want.meter and want.cuts[0] <= each.at < want.cuts[-1]:
                kept = {name: value for name, value in each.dimensions.items() if name in want.dimensions}
                expected.append(each._replace(dimensions=kept))
                begins.append(row_of(each.at, want))
    assert values(found.with_columns(pl.col("dimension.size").fill_null(""))) == values(
        usage_of(expected).with_columns(pl.Series("at", begins, INSTANT))
    )
    for want in wants:
        of_meter = found.filter(meter=want.meter)
        if want.events:
            assert of_meter["count"].to_list() == [1] * of_meter.height
            in_order = [
                row for row in sorted(expected, key=lambda row: (row.at, row.position)) if row.meter == want.meter
            ]
            subjects = of_meter.sort("position")["subject"].to_list()
            assert subjects == [row.subject for row in in_order]


@settings(suppress_health_check=[*HealthCheck], max_examples=10, deadline=None)
@given(case=rating_cases(), every=st.integers(1, 9))
def test_usage_from_the_store_rates_as_its_events(case: RatingCase, every: int, clickhouse: Client) -> None:
    """Charges, slices, discounts and levels are those of a row an event; and no usage behind the cut counts."""
    tenant = uuid.uuid4().hex
    store(clickhouse, case.events, tenant, every)
    basis = Basis(Books(case.books), case.contracts, AGGREGATIONS, case.after, case.through, cut=CUT)
    rater = Rater(basis)
    of_contracts = [want for contract in case.contracts.contracts for want in rater.wants(contract)]
    wants = together([*of_contracts, *rater.wants_of_others()])
    usage = metered_usage(clickhouse, VERSIONS.__getitem__, tenant, METERS, wants, CUT)
    found, expected = rated(case, rater, usage), rated(case, rater, usage_of(case.events))
    chunks = list(in_chunks(case, rater, clickhouse, tenant))
    assert found.charges.equals(expected.charges)
    assert found.slices.equals(expected.slices)
    assert found.discounts.equals(expected.discounts)
    assert found.carried.sort(pl.all()).equals(expected.carried.sort(pl.all()))
    within = {(event.subject, event.meter) for event in case.events}
    assert within.issuperset(found.unassigned.select("subject", "meter").rows())
    for name in ("charges", "slices", "discounts", "carried"):
        whole, parts = getattr(expected, name), [getattr(chunk, name) for chunk in chunks]
        together_ = pl.concat([part for part in parts if part.height] or [whole.clear()])
        assert together_.sort(pl.all()).equals(whole.sort(pl.all())), name
