"""One batch through the core: what it tells beside its rows."""

import json

import pytest

from aggregation.batch import Batch
from aggregation.dedup import DedupIndex
from aggregation.fold_batch import PartitionState, fold_batch
from ingest.pack import identify, pack
from schemas.log import LogConfig, Record, Records

PARTITIONS = 5
HEAD = {"specversion": "1.0", "type": "call", "subject": "x", "time": "2013-01-31T10:00:00Z"}


def line(event_id: str, source: str = "/s", **fields: str) -> bytes:
    return json.dumps({**HEAD, "id": event_id, "source": source, **fields}).encode()


def misplaced(partition: int, *values: bytes) -> int:
    """How many events of these records are in another partition than their own, if they stand in this one."""
    config = LogConfig()
    batch = Batch(0, Records.of([Record(offset, 0, None, value) for offset, value in enumerate(values)]))
    state = PartitionState(partition, config=config)
    return fold_batch(batch, state, DedupIndex(35), lambda _: config, partitions=PARTITIONS).misplaced


@pytest.mark.parametrize(
    "odd",
    [
        line("ünï", "/\U0001f6eb", tenant="acme"), line('"quoted\\"', tenant="t\tt"), line("1", "/s/" + "x" * 400),
        line("1").replace(b'"id"', b'"\\u0069d"'), line("1").replace(b'"id": "1"', b'"id": "1", "id": "2"'),
        line("1").replace(b'"id": "1"', b'"id": "2", "\\u0069d": "1"'), line("true"), line("1.0"), line("null"),
    ],
    ids=lambda odd: odd[60:110].decode(),
)  # fmt: skip
def test_what_the_gateway_packs_is_in_its_place(odd: bytes) -> None:
    """The gateway and the aggregation read the same identity from a line, however it is written."""
    lines = [odd, *(line(str(n)) for n in range(50))]
    packed = pack(lines, identify(lines), PARTITIONS)
    assert len(packed) == PARTITIONS
    assert [misplaced(partition, value) for partition, value in packed] == [0] * PARTITIONS


def test_events_in_another_partition_are_told_of() -> None:
    """Copies among them, too; what is no event has no place of its own."""
    lines = [line(str(n)) for n in range(50)]
    places = {partition: value.split(b"\n") for partition, value in pack(lines, identify(lines), PARTITIONS)}
    strays = [*places[1], *places[2], places[1][0]]
    assert misplaced(0, *places[0], b"\n".join(strays), b"not json", b"") == len(strays)
