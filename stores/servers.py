"""Where the servers of a deployment are: Kafka, ClickHouse and PostgreSQL, as the environment names them.

    METERLINE_KAFKA       host:port,host:port
    METERLINE_TOPIC       the topic of the log; usage.events if not set
    METERLINE_CLICKHOUSE  http://user:password@host:8123/database, or chdb:/path for the engine in the worker's process
    METERLINE_POSTGRES    postgresql://user:password@host/database

Where none is set, Meterline runs embedded, over a data directory.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.configuration import ConfigurationError, Fault

TOPIC = "usage.events"
_NAMES = {
    "METERLINE_KAFKA": "bootstrap servers such as kafka:9092",
    "METERLINE_CLICKHOUSE": "a URL such as http://clickhouse:8123/default",
    "METERLINE_POSTGRES": "a URL such as postgresql://user:password@postgres/meterline",
}


@dataclass(frozen=True)
class Servers:
    """The servers of a deployment."""

    kafka: str
    clickhouse: str
    postgres: str
    topic: str = TOPIC


def servers_of(environment: Mapping[str, str]) -> Servers | None:
    """The servers that an environment names; None when it names none.

    Raises ConfigurationError when it names some and not all.

    >>> servers_of({}) is None
    True
    """
    given = {name: environment.get(name, "") for name in _NAMES}
    if not any(given.values()):
        return None
    faults = [
        Fault("environment", name, "not set", f"allowed: {_NAMES[name]}") for name, value in given.items() if not value
    ]
    if faults:
        raise ConfigurationError(faults)
    return Servers(
        kafka=given["METERLINE_KAFKA"],
        clickhouse=given["METERLINE_CLICKHOUSE"],
        postgres=given["METERLINE_POSTGRES"],
        topic=environment.get("METERLINE_TOPIC") or TOPIC,
    )
