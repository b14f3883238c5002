"""Rejected lines, and their way back into the log, as they are or repaired.

A line that went back is no longer open, whatever becomes of it there: if it is rejected again, that is a new rejection
at its new place. An event that was accepted after all by another way is then found to be a duplicate.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import orjson
import polars as pl
import sqlalchemy as sa

from ingest.pack import identify, pack
from stores.clickhouse import Client, query
from stores.log import Log

_POSITION = """concat_ws(':', left(log_id, 8), partition, "offset", line)"""


@dataclass(frozen=True)
class Rejected:
    """A rejected line: its position `log:partition:offset:line`, why it was rejected, and its bytes."""

    position: str
    reason: str
    detail: str
    raw: bytes

    def to_json(self) -> dict[str, str]:
        """The row as JSON has it; bytes that are no text are written in base64."""
        row = {"position": self.position, "reason": self.reason, "detail": self.detail}
        try:
            return {**row, "raw": self.raw.decode()}
        except UnicodeDecodeError:
            return {**row, "raw_base64": b64encode(self.raw).decode()}

    @classmethod
    def from_json(cls, line: str) -> Self:
        """A row as `to_json` writes it, `raw` being text or, repaired, the event itself.

        Raises ValueError when the line is no such row.
        """
        row: Any = orjson.loads(line)
        if not isinstance(row, dict) or "position" not in row or not {"raw", "raw_base64"} & row.keys():
            raise ValueError(f"{line[:80]}: allowed: JSON with position and raw, as `rejections list --json` prints it")
        raw = row.get("raw")
        event = raw.encode() if isinstance(raw, str) else orjson.dumps(raw) if raw else b64decode(row["raw_base64"])
        return cls(row["position"], row.get("reason", ""), row.get("detail", ""), event)


def open_rejections(client: Client, database: sa.Engine, reason: str | None) -> list[Rejected]:
    """The rejected lines that were not put back into the log, by position; of one reason, or of all."""
    rows = query(
        client,
        "SELECT concat(left(log_id, 8), ':', toString(partition), ':', toString(offset), ':', toString(line))"
        " AS position, reason, detail, base64Encode(raw) AS raw FROM rejections WHERE {reason:String} IN ('', reason)"
        " ORDER BY appended_at, log_id, partition, offset, line",
        reason=reason or "",
    )
    with database.connect() as connection:
        replayed = connection.execute(sa.text(f"SELECT {_POSITION} FROM rejection_replays")).scalars()  # noqa: S608
        rows = rows.filter(~pl.col("position").is_in(pl.Series(list(replayed), dtype=pl.String).implode()))
    return [Rejected(position, why, detail, b64decode(raw)) for position, why, detail, raw in rows.iter_rows()]


def replays_of(database: sa.Engine, positions: Sequence[str]) -> dict[str, datetime]:
    """When the rejections at some of these positions were put back into the log; those that were not are left out."""
    with database.connect() as connection:
        rows = connection.execute(
            sa.text(
                f"SELECT {_POSITION}, replayed_at FROM rejection_replays"  # noqa: S608  bound
                f' WHERE "offset" = ANY(:offsets) AND {_POSITION} = ANY(:positions)'
            ),
            {"offsets": [_place(each)["offset"] for each in positions], "positions": list(positions)},
        ).all()
    return {position: at.astimezone(UTC) for position, at in rows}


def append_again(log: Log, database: sa.Engine, rows: Sequence[Rejected]) -> None:
    """Put lines back into the log, then mark their rejections.

    After a crash in between they are put back once more: an event among them is then found to be a duplicate.
    """
    if not rows:
        return
    lines = [row.raw.replace(b"\n", b" ") for row in rows]
    log.append(pack(lines, identify(lines), log.partitions))
    with database.begin() as connection:
        connection.execute(
            sa.text(
                'INSERT INTO rejection_replays (log_id, partition, "offset", line)'
                " VALUES (:log_id, :partition, :offset, :line) ON CONFLICT DO NOTHING"
            ),
            [_place(row.position) for row in rows],
        )


def _place(position: str) -> dict[str, str | int]:
    log_id, partition, offset, line = position.split(":")
    return {"log_id": log_id, "partition": int(partition), "offset": int(offset), "line": int(line)}
