"""Laws of usage queries, over the real engine: rollups with events at their edges, events alone, and a plain oracle."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregation.answer import answer
from aggregation.batch import Cutter
from aggregation.dedup import DedupIndex
from aggregation.fold_batch import PartitionState, fold_batch
from aggregation.plan import Scope, Statement
from aggregation.store import store_batch
from schemas.log import Barrier, Configure, Flush, LogConfig, Record, Records, punctuation_key
from schemas.meter import Aggregation, Meter
from schemas.usage_query import usage_query
from stores.clickhouse import Client, query
from tests.oracles.usage_oracle import Used, usage

METERS = tuple(
    Meter(
        slug=kind.value.lower(), event_type="call", aggregation=kind, group_by={"region": "$.region", "plan": "$.plan"},
        value_property=None if kind is Aggregation.COUNT else "$.value",
    )
    for kind in Aggregation
)  # fmt: skip
VERSIONS = {0: LogConfig(), 1: LogConfig(), 2: LogConfig(meters=METERS), 3: LogConfig(meters=METERS[:3])}
CUSTOMERS = {"c": ("it's", "x"), "d": ("nobody",)}  # y has no customer
PAYERS = {subject: customer for customer, subjects in CUSTOMERS.items() for subject in subjects}
ZONES = ("UTC", "Asia/Kathmandu", "Australia/Lord_Howe", "America/New_York", "Europe/Berlin")
ANCHORS = [
    datetime(2013, 1, 31, 18, 15, tzinfo=UTC),  # a month begins in Kathmandu
    datetime(2013, 2, 1, tzinfo=UTC),
    datetime(2013, 3, 10, 7, tzinfo=UTC),  # New York: no hour from two to three
    datetime(2013, 11, 3, 6, tzinfo=UTC),  # New York: the hour from one to two comes twice
    datetime(2013, 4, 6, 15, tzinfo=UTC),  # Lord Howe: from 02:00 back to 01:30
    datetime(2013, 10, 5, 15, 30, tzinfo=UTC),  # Lord Howe: from 02:00 to 02:30
]
MOVES = [-100_000, -5400, -2700, -1800, -60, -0.000001, 0, 0.000001, 59.5, 900, 1800, 3600, 5400, 90_000]

instants = st.builds(
    lambda anchor, move: anchor + timedelta(seconds=move), st.sampled_from(ANCHORS), st.sampled_from(MOVES)
)
event = st.fixed_dictionaries(
    {
        "id": st.sampled_from("abcdefghijklmnop"),
        "subject": st.sampled_from(["x", "y", "it's"]),
        "type": st.sampled_from(["call", "call", "call", "other"]),
        "time": instants,
        "value": st.sampled_from(
            ["1", "2.5", "-3", "0.000000001", "999999999999999", '"7"', '"seven"', "null", "1e3", "0.1234567891"]
        ),
        "region": st.sampled_from(["eu", "us", None]),
        "plan": st.sampled_from(["free", "%"]),
    }
)
steps = st.lists(
    st.one_of(
        st.lists(event, min_size=1, max_size=12),
        st.sampled_from([Flush(), Barrier(1), Barrier(2), Configure(2, ""), Configure(3, "")]),
    ),
    max_size=8,
)
queries = st.fixed_dictionaries(
    {"from": instants, "to": instants},
    optional={
        "windowSize": st.sampled_from(["MINUTE", "HOUR", "DAY", "MONTH"]),
        "windowTimeZone": st.sampled_from(ZONES),
        "subject": st.lists(st.sampled_from(["x", "it's", "nobody"]), min_size=1, max_size=2, unique=True),
        "groupBy": st.lists(st.sampled_from(["subject", "region", "plan", "customer_id"]), unique=True, max_size=3),
        "filterCustomerId": st.lists(st.sampled_from([*CUSTOMERS]), min_size=1, max_size=2, unique=True),
        "filterGroupBy": st.dictionaries(
            st.sampled_from(["region", "plan"]), st.lists(st.sampled_from(["eu", "", "%"]), min_size=1, max_size=2)
        ),
        "asOf": st.integers(0, 3),
    },
).filter(lambda drawn: drawn["from"] < drawn["to"])


def line(fields: dict[str, Any], tenant: str) -> bytes:
    head = {
        "specversion": "1.0",
        "source": "/s",
        "tenant": tenant,
        **{name: fields[name] for name in ("id", "subject", "type")},
    }
    data = f'{{"value":{fields["value"]},"region":{json.dumps(fields["region"])},"plan":"{fields["plan"]}"}}'
    return f'{json.dumps(head)[:-1]},"time":"{fields["time"].isoformat()}","data":{data}}}'.encode()


def stored(client: Client, drawn: list[Any], tenant: str) -> tuple[str, list[tuple[dict[str, Any], int, int]]]:
    """Fold and store a log; returns each event that was accepted with its epoch and the version it was folded by."""
    log_id = uuid.uuid4().hex
    records, accepted, seen, epoch, version = (
        [Record(0, 0, punctuation_key(Configure(1, log_id)), None)],
        [],
        set(),
        0,
        1,
    )
    for offset, step in enumerate([Configure(2, "")] * (len(drawn) % 3 > 0) + [*drawn, Flush()], start=1):
        if isinstance(step, list):
            records.append(Record(offset, offset, None, b"\n".join(line(fields, tenant) for fields in step)))
            for fields in step:
                if fields["id"] not in seen:
                    accepted.append((fields, epoch, version))
                seen.add(fields["id"])
            continue
        if isinstance(step, Configure):
            step = Configure(step.version, log_id)
            version = max(version, step.version)
        if isinstance(step, Barrier):
            epoch = max(epoch, step.number)
        records.append(Record(offset, offset, punctuation_key(step), None))
    state, index = PartitionState(0), DedupIndex(35)
    for batch in Cutter(0, 0, VERSIONS.__getitem__).cut(Records.of(records)):
        folded = fold_batch(batch, state, index, VERSIONS.__getitem__)
        index.add(folded.hashes, folded.days)
        store_batch(client, folded)
        state = folded.state
    return tenant, accepted


def counted(accepted: list[tuple[dict[str, Any], int, int]], meter: Meter) -> list[Used]:
    """The events that count for a meter, judged anew."""
    found = []
    for fields, epoch, version in accepted:
        parsed = json.loads(fields["value"], parse_float=Decimal, parse_int=Decimal)
        text = None if parsed is None else parsed if isinstance(parsed, str) else format(parsed, "f")
        usable = text is not None and (not meter.numeric or text not in {"seven", "0.1234567891"})
        known = meter.slug in {each.slug for each in VERSIONS[version].meters}
        if known and fields["type"] == "call" and (usable or meter.aggregation is Aggregation.COUNT):
            dimensions = {"region": fields["region"] or "", "plan": fields["plan"]}
            found.append(Used(fields["time"], fields["subject"], dimensions, text, epoch))
    return found


def rows_of(scope: Scope, client: Client, *, all_from_events: bool) -> dict[Any, Decimal]:
    def read(statement: Statement) -> Any:
        return query(client, statement.sql, **statement.bound)

    found = answer(scope, read, VERSIONS.__getitem__, all_from_events=all_from_events).rows
    names = [name for name in scope.query.group_by if name not in {"subject", "customer_id"}]
    return {
        (
            datetime.fromtimestamp(row["window_start"], UTC), datetime.fromtimestamp(row["window_end"], UTC),
            row.get("subject"), row.get("customer"), *(row[f"dimension {name}"] for name in names),
        ): row["value"]
        for row in found.iter_rows(named=True)
    }  # fmt: skip


@settings(suppress_health_check=[*HealthCheck], max_examples=20)
@given(steps=steps, asked=st.lists(queries, min_size=3, max_size=8))
def test_rollups_events_and_the_oracle_agree(steps: list[Any], asked: list[dict[str, Any]], clickhouse: Client) -> None:
    """Any query, of any meter, gives the oracle's rows; from rollups with edges, and from events alone."""
    tenant, accepted = stored(clickhouse, steps, uuid.uuid4().hex)
    stored(clickhouse, steps, f"{tenant}-other")  # whose usage must never show
    for number, each in enumerate(asked):
        meter = METERS[(number + len(steps)) % len(METERS)]
        expected = usage(counted(accepted, meter), meter.aggregation, each, PAYERS)
        if not each.get("windowSize"):  # a range is shown in whole seconds
            whole = [at.replace(microsecond=0) for at in (each["from"], each["to"])]
            expected = {(*whole, *key[2:]): value for key, value in expected.items()}
        scope = Scope(tenant, meter, usage_query(each), customers=CUSTOMERS)
        assert rows_of(scope, clickhouse, all_from_events=False) == expected, each
        assert rows_of(scope, clickhouse, all_from_events=True) == expected, each
