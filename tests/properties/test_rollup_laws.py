"""Laws of the rollups, over the pure core: a simulated log, cut and folded in any way, against a plain recount."""

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.batch import Batch, Cutter
from aggregation.dedup import DedupIndex
from aggregation.fold_batch import FoldedBatch, PartitionState, fold_batch
from schemas.log import Barrier, Flush, Limits, LogConfig, Record, Records, punctuation_key
from schemas.meter import Aggregation, Meter
from schemas.meter_terms import Filter

HOURS = [datetime(2013, 1, 31, 22, tzinfo=UTC) + timedelta(minutes=30 * n) for n in range(6)]
OPEN = tuple(
    Meter(
        slug=kind.value.lower(), event_type="call", aggregation=kind, group_by={"region": "$.region"},
        value_property=None if kind is Aggregation.COUNT else "$.value",
    )
    for kind in Aggregation
)  # fmt: skip
CHOOSY = tuple(
    meter.model_copy(
        update={
            "slug": f"choosy_{meter.slug}", "event_from": HOURS[2], "event_age_max": timedelta(minutes=40),
            "event_ahead_max": timedelta(minutes=30), "filters": {
                "$.region": Filter.model_validate({"not_in": ["us"]}), "$.kind": Filter.model_validate(["", "a"]),
            },
        }
    )
    for meter in OPEN
)  # fmt: skip
METERS = OPEN + CHOOSY
FIRST_MS = int(HOURS[1].timestamp() * 1000)
RECORD_MS = 600_000
DAY_MS = 86_400_000

event = st.fixed_dictionaries(
    {
        "id": st.sampled_from("abcdefgh"),
        "subject": st.sampled_from(["x", "y"]),
        "type": st.sampled_from(["call", "call", "call", "other"]),
        "time": st.sampled_from(HOURS),
        "value": st.sampled_from(
            ["1", "2.5", "-3", "0.000000001", "999999999999999", '"7"', '"seven"', "null", "1e3", "0.1234567891"]
        ),
        "region": st.sampled_from(["eu", "us", None]),
        "kind": st.sampled_from(["a", "a", "b", None]),
    }
)
punctuation = st.sampled_from([Flush(), Barrier(1), Barrier(2)])


def line(fields: dict[str, Any]) -> bytes:
    head = {"specversion": "1.0", "source": "/s", **{name: fields[name] for name in ("id", "subject", "type")}}
    data = f'{{"value":{fields["value"]},"region":{json.dumps(fields["region"])},"kind":{json.dumps(fields["kind"])}}}'
    return f'{json.dumps(head)[:-1]},"time":"{fields["time"].isoformat()}","data":{data}}}'.encode()


def log_of(steps: list[Any]) -> list[Record]:
    """A log: events as records of one or more lines, punctuation between them; and one last flush."""
    records = []
    for offset, step in enumerate([*steps, Flush()]):
        appended_at_ms = FIRST_MS + offset * RECORD_MS
        if isinstance(step, list):
            records.append(Record(offset, appended_at_ms, None, b"\n".join(map(line, step))))
        else:
            records.append(Record(offset, appended_at_ms, punctuation_key(step), None))
    return records


def folded(records: list[Record], batch_events_max: int = 1000, meters: Sequence[Meter] = METERS) -> list[FoldedBatch]:
    """Every batch of a log, from its start."""
    config = LogConfig(limits=Limits(batch_events_max=batch_events_max), meters=tuple(meters))
    state, index, batches = PartitionState(0, config=config, log_id="0" * 32), DedupIndex(35), []
    for batch in Cutter(0, 0, lambda _: config).cut(Records.of(records)):
        batches.append(fold_batch(batch, state, index, lambda _: config))
        index.add(batches[-1].hashes, batches[-1].days)
        state = batches[-1].state
    return batches


def first_batch(records: list[Record], state: PartitionState, config: LogConfig) -> Batch:
    return next(iter(Cutter(state.next_offset, 0, lambda _: config).cut(Records.of(records))))


def totals(batches: list[FoldedBatch], *, by_epoch: bool = True) -> dict[Any, Any]:
    """The rollups that the batches add up to, as ClickHouse would merge them."""
    merged: dict[Any, Any] = {}
    for row in pl.concat([batch.frames["rollups"] for batch in batches]).iter_rows(named=True):
        key = (
            row["meter"],
            row["subject"],
            row["dimensions"][0]["value"],
            row["window_start"],
            row["epoch"] * by_epoch,
        )
        count, total, least, most, uniques, latest = merged.get(key, (0, Decimal(0), None, None, frozenset(), None))
        found = [(*place.values(),) for place in row["latest"]]
        merged[key] = (
            count + row["count"],
            total + row["sum"],
            min(filter(lambda v: v is not None, (least, row["min"])), default=None),
            max(filter(lambda v: v is not None, (most, row["max"])), default=None),
            uniques | set(row["uniques"]),
            max([*found, *([latest] if latest else [])], default=None),
        )
    return merged


def without_places(merged: dict[Any, Any]) -> dict[Any, Any]:
    """The same, where of the latest value only its event time and itself are told."""
    return {key: (*measures, latest and (latest[0], latest[-1])) for key, (*measures, latest) in merged.items()}


def recount(steps: list[Any]) -> dict[Any, Any]:
    """The same, counted slowly from the events as they were drawn."""
    seen: set[str] = set()
    epoch = 0
    values: dict[Any, list[Any]] = defaultdict(list)
    for offset, step in enumerate(steps):
        if isinstance(step, Barrier):
            epoch = max(epoch, step.number)
        appended_at = datetime.fromtimestamp(FIRST_MS / 1000, UTC) + timedelta(milliseconds=offset * RECORD_MS)
        for number, fields in enumerate(step if isinstance(step, list) else []):
            if fields["id"] in seen:
                continue
            seen.add(fields["id"])
            if fields["type"] != "call":
                continue
            hour = fields["time"].replace(minute=0, microsecond=0)
            where = (fields["subject"], fields["region"] or "", hour, epoch)
            parsed = json.loads(fields["value"], parse_float=Decimal, parse_int=Decimal)
            text = None if parsed is None else parsed if isinstance(parsed, str) else format(parsed, "f")
            usable = text is not None and text not in {"seven", "0.1234567891"}
            place = (fields["time"], appended_at, 0, offset, number)
            for meter in METERS:
                counts = meter.aggregation is Aggregation.COUNT or (text is not None if not meter.numeric else usable)
                if counts and (meter in OPEN or chosen(fields, appended_at)):
                    values[(meter.slug, meter.aggregation, *where)].append((text, place))
    return {(slug, *where): _measures(kind, counted) for (slug, kind, *where), counted in values.items()}


def chosen(fields: dict[str, Any], appended_at: datetime) -> bool:
    """Whether the choosy meters count an event."""
    before, after = (timedelta(minutes=minutes) for minutes in (40, 30))
    in_time = appended_at - before <= fields["time"] <= appended_at + after
    return in_time and fields["time"] >= HOURS[2] and fields["region"] != "us" and fields["kind"] != "b"


def _measures(kind: Aggregation, counted: list[Any]) -> tuple[Any, ...]:
    texts = [text for text, _ in counted]
    numbers = [Decimal(text) for text in texts] if kind not in {"COUNT", "UNIQUE_COUNT"} else []
    return (
        len(texts),
        sum(numbers, Decimal(0)) if kind in {"SUM", "AVG"} else Decimal(0),
        min(numbers) if kind is Aggregation.MIN else None,
        max(numbers) if kind is Aggregation.MAX else None,
        frozenset(texts) if kind is Aggregation.UNIQUE_COUNT else frozenset(),
        max((*place, Decimal(text)) for text, place in counted) if kind is Aggregation.LATEST else None,
    )


steps = st.lists(st.lists(event, min_size=1, max_size=4) | punctuation, max_size=12)


@settings(max_examples=40)
@given(steps, st.integers(min_value=1, max_value=6))
def test_rollups_are_what_a_plain_recount_says(drawn: list[Any], batch_events_max: int) -> None:
    """However the log is cut into batches, the rollups are the recount of its first copies."""
    assert totals(folded(log_of(drawn), batch_events_max)) == recount(drawn)


@settings(max_examples=40)
@given(steps, st.randoms(use_true_random=False))
def test_rollups_do_not_depend_on_order_or_copies(drawn: list[Any], random: Any) -> None:
    """Distinct events, in any order and sent again any number of times, give the same rollups.

    No two of them have the same time, or the one that came later would be the latest; and no limit of age, which is
    about arrival, stands in the way.
    """
    distinct = {fields["id"]: fields for step in drawn if isinstance(step, list) for fields in step}
    events = [
        {**fields, "time": fields["time"] + timedelta(microseconds=number)}
        for number, fields in enumerate(distinct.values())
    ]
    again = events + [random.choice(events) for _ in range(len(events))] if events else []
    random.shuffle(again)
    one_by_one = [[fields] for fields in again]
    ageless = [meter.model_copy(update={"event_age_max": None, "event_ahead_max": None}) for meter in METERS]
    once, shuffled = (
        totals(folded(log_of(lines), batch_events_max, ageless), by_epoch=False)
        for lines, batch_events_max in (([events] if events else [], 1000), (one_by_one, 3))
    )
    assert without_places(once) == without_places(shuffled)


@settings(max_examples=40)
@given(steps, st.integers(min_value=1, max_value=6), st.randoms(use_true_random=False))
def test_rollups_merge_in_any_order(drawn: list[Any], batch_events_max: int, random: Any) -> None:
    """The deltas of batches are merged in the background in any order; what they add up to stays the same."""
    batches = folded(log_of(drawn), batch_events_max)
    expected = totals(batches)
    random.shuffle(batches)
    assert totals(batches) == expected


@settings(max_examples=40)
@given(steps, st.integers(min_value=1, max_value=6), st.data())
def test_a_replay_makes_the_same_batches(drawn: list[Any], batch_events_max: int, data: st.DataObject) -> None:
    """Folding again from the end of any batch gives the same tokens with the same rows."""
    records = log_of(drawn)
    config = LogConfig(limits=Limits(batch_events_max=batch_events_max), meters=METERS)
    batches = folded(records, batch_events_max)
    start = data.draw(st.integers(min_value=0, max_value=len(batches) - 1))
    state = batches[start - 1].state if start else PartitionState(0, config=config, log_id="0" * 32)
    index = DedupIndex(35)
    for batch in batches[:start]:
        index.add(batch.hashes, batch.days)
    replayed = fold_batch(
        first_batch([r for r in records if r.offset >= state.next_offset], state, config),
        state,
        index,
        lambda _: config,
    )
    assert replayed.state == batches[start].state
    for table, frame in batches[start].frames.items():
        assert replayed.token(table) == batches[start].token(table)
        again = replayed.frames[table]
        if "uniques" in frame.columns:
            frame, again = (f.with_columns(pl.col("uniques").list.sort()) for f in (frame, again))
        assert sorted(again.rows(), key=repr) == sorted(frame.rows(), key=repr)


@settings(max_examples=40)
@given(steps)
def test_every_line_becomes_exactly_one_thing(drawn: list[Any]) -> None:
    """Accepted, duplicate and rejected lines add up to the lines of the log, and each has a place of its own."""
    batches = folded(log_of(drawn), 3)
    places = [
        place
        for batch in batches
        for table in ("events", "duplicates", "rejections")
        for place in batch.frames[table].select("offset", "line").iter_rows()
    ]
    assert len(places) == len(set(places)) == sum(len(step) for step in drawn if isinstance(step, list))


def test_the_horizon_ends_deduplication() -> None:
    """A copy on the last day of the horizon is a duplicate; a day later it is an event again."""
    #   day 0        day 35          day 36
    #   first        duplicate       counted again
    config = LogConfig(meters=METERS)
    text = line(
        {"id": "a", "subject": "x", "type": "call", "time": HOURS[0], "value": "1", "region": None, "kind": None}
    )
    state, index, accepted = PartitionState(0, config=config), DedupIndex(35), []
    for offset, day in enumerate((0, 35, 36)):
        batch = fold_batch(
            Batch(state.next_offset, Records.of([Record(offset, day * DAY_MS, None, text)])),
            state,
            index,
            lambda _: config,
        )
        index.add(batch.hashes, batch.days)
        state = batch.state
        accepted.append(len(batch.frames["events"]))
    assert accepted == [1, 0, 1]


def test_time_stands_still_where_the_clock_was_set_back() -> None:
    """A copy by a clock that lags is a duplicate or not by the newest time, whether the index was loaded or has grown.

    An event that names no time has that time, too, so that its hour can be told from what is stored.
    """
    #   day  0        36               35, by another broker's clock
    #        first    another event    counted again: on day 36, the first one is out of the horizon
    config = LogConfig(meters=METERS)
    fields = {"subject": "x", "type": "call", "time": HOURS[0], "value": "1", "region": None, "kind": None}
    without_time = line({"id": "a", **fields}).replace(b'"time"', b'"at"')
    many = b"\n".join(line({"id": each, **fields}) for each in "acdef")  # so many that the index does not merge them
    values = [many, line({"id": "b", **fields}), without_time]
    grown, state, folded = DedupIndex(35), PartitionState(0, config=config), None
    for offset, (day, value) in enumerate(zip((0, 36, 35), values, strict=True)):
        loaded = DedupIndex(35)
        if folded is not None:
            loaded.add(folded.hashes, folded.days)
        batch = Batch(offset, Records.of([Record(offset, day * DAY_MS, None, value)]))
        folded, again = (fold_batch(batch, state, index, lambda _: config) for index in (grown, loaded))
        assert all(folded.frames[table].equals(again.frames[table]) for table in ("events", "duplicates", "progress"))
        grown.add(folded.hashes, folded.days)
        state = folded.state
    assert state.appended_at_ms == 36 * DAY_MS
    times = folded.frames["events"].select(pl.col("time", "appended_at").dt.epoch("d")).rows()
    assert times == [(36, 36)]
