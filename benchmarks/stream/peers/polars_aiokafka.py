"""The ceiling for aiokafka: fetch every record and decode it with polars, 65,536 lines at a time. Nothing else.

python polars_aiokafka.py BROKER TOPIC EVENTS RESULT
"""

import asyncio
import sys
import time
from pathlib import Path

from aiokafka import AIOKafkaConsumer
from decoding import Decoder, say


async def _decode(broker: str, topic: str, result: Path) -> None:
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=broker, auto_offset_reset="earliest", max_partition_fetch_bytes=2 << 20
    )
    started_at = time.time()
    await consumer.start()  # without a group it has all partitions, and fetches at once
    try:
        assigned = sorted(consumer.assignment())
        ends = await consumer.end_offsets(assigned)
        decoder = Decoder()
        reached = dict.fromkeys(assigned, 0)
        while any(reached[each] < ends[each] for each in assigned):
            for partition, records in (await consumer.getmany(timeout_ms=1000)).items():
                reached[partition] = records[-1].offset + 1
                decoder.add(record.value for record in records if record.value is not None)
        decoder.finish()
        say(decoder, started_at, result)
    finally:
        await consumer.stop()


if __name__ == "__main__":
    asyncio.run(_decode(sys.argv[1], sys.argv[2], Path(sys.argv[4])))
