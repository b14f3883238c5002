"""Import of files: NDJSON, one usage event a line, into the log.

Every line goes into the log as it is, good or bad: the aggregation decides, and a bad line becomes a rejection with its
position. An import that was killed is run again: what the log has already is found to be a duplicate.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from ingest.pack import identify, pack

CHUNK_BYTES = 16 << 20


def import_file(
    path: Path, append: Callable[[list[tuple[int, bytes]]], None], partitions: int
) -> Iterator[tuple[int, int]]:
    """Append a file's lines; yields (lines, bytes) that are durable so far, after each chunk."""
    lines_done = bytes_done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            chunk += file.readline()
            lines = [line for line in chunk.split(b"\n") if line]
            append(pack(lines, identify(lines) if partitions > 1 else lines, partitions))
            lines_done += len(lines)
            bytes_done += len(chunk)
            yield lines_done, bytes_done
