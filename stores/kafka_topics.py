"""Topics that are no log: made where they are missing, and taken as they are where they are there."""

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from schemas.configuration import ConfigurationError, Fault
from stores.kafka_producer import RECORD_BYTES_MAX
from stores.servers import Servers


async def topic_partitions(servers: Servers, *, partitions: int, replication: int) -> int:
    """How many partitions `servers.topic` has; one that is missing is made with so many.

    Raises ConfigurationError when the brokers refuse it, KafkaError or OSError when they do not answer.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka)
    try:
        await admin.start()
        if servers.topic not in await admin.list_topics():
            settings = {"max.message.bytes": str(RECORD_BYTES_MAX), "compression.type": "producer"}
            answer = await admin.create_topics(
                [NewTopic(servers.topic, partitions, replication, topic_configs=settings)]
            )
            for _, code, *message in answer.topic_errors:
                if code and for_code(code) is not TopicAlreadyExistsError:
                    allowed = "allowed: what the brokers accept"
                    raise ConfigurationError(
                        [Fault("Kafka", servers.topic, for_code(code).__name__, f"{message}; {allowed}")]
                    )
        (topic,) = await admin.describe_topics([servers.topic])
        return len(topic["partitions"])
    finally:
        await admin.close()
