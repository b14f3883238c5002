"""The ceiling for confluent-kafka: fetch every record and decode it with polars, 65,536 lines at a time. Nothing else.

python polars_confluent.py BROKER TOPIC EVENTS RESULT
"""

import sys
import time
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from decoding import Decoder, say

MESSAGES_MAX = 10_000  # asked for at once


def _decode(broker: str, topic: str, result: Path) -> None:
    settings = {"bootstrap.servers": broker, "group.id": "ceiling", "enable.auto.commit": False}
    consumer = Consumer(
        {**settings, "fetch.queue.backoff.ms": 5}
    )  # the second that it rests by default when it is ahead is no ceiling
    partitions = [
        TopicPartition(topic, number, OFFSET_BEGINNING)
        for number in consumer.list_topics(topic).topics[topic].partitions
    ]
    ends = {each.partition: consumer.get_watermark_offsets(each)[1] for each in partitions}
    decoder = Decoder()
    started_at = time.time()
    consumer.assign(partitions)
    reached = dict.fromkeys(ends, 0)
    while any(reached[number] < end for number, end in ends.items()):
        messages = consumer.consume(MESSAGES_MAX, timeout=0.1)
        for message in messages:
            reached[message.partition()] = message.offset() + 1
        decoder.add(value for message in messages if (value := message.value()) is not None)
    decoder.finish()
    say(decoder, started_at, result)
    consumer.close()


if __name__ == "__main__":
    _decode(sys.argv[1], sys.argv[2], Path(sys.argv[4]))
