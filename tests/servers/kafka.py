"""A real Kafka broker as a process: from Maven Central, one node in KRaft mode, on the loopback address.

Where KAFKA_BOOTSTRAP_SERVERS is set, tests that need no broker of their own use that one.
"""

import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

POM = Path(__file__).with_name("kafka.pom.xml")
LIBRARIES = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "meterline" / "kafka-4.1.1"
START_TIMEOUT_S = 60.0
QUICK_START = ("-XX:TieredStopAtLevel=1",)
"""For a broker that lives for minutes: it starts in 3.3 CPU seconds instead of 5.3, and runs slower in the long run."""

_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.retention.ms=-1
"""


@dataclass
class Broker:
    """A broker over a directory. It keeps its port and its records over restarts."""

    directory: Path
    port: int = 0
    heap: str = "512m"
    settings: str = ""
    """Lines of server.properties that win over ours."""
    options: Sequence[str] = ()
    """Of Java."""
    _controller_port: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def bootstrap_servers(self) -> str:
        """Where clients find it."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start it, and return once it answers."""
        libraries = _libraries()
        properties = self.directory / "server.properties"
        if not properties.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            self.port, self._controller_port = self.port or free_port(), free_port()
            values = {"port": self.port, "controller_port": self._controller_port, "data": self.directory / "data"}
            properties.write_text(_PROPERTIES.format(**values) + self.settings)
            arguments = ["format", "-t", uuid.uuid4().hex[:22], "-c", str(properties)]
            subprocess.run(
                [*_java(libraries, "128m", QUICK_START), "kafka.tools.StorageTool", *arguments],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        output = (self.directory / "broker.log").open("ab")
        self._process = subprocess.Popen(
            [*_java(libraries, self.heap, self.options), "kafka.Kafka", str(properties)],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        output.close()
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not _answers(self.port):
            assert self._process.poll() is None, (self.directory / "broker.log").read_text()[-4000:]
            assert time.monotonic() < deadline_s, "the broker did not answer"
            time.sleep(0.05)  # there is no event to wait for before the first answer
        return self

    def kill(self) -> None:
        """As a power switch would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As an operator would."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Stop it from answering, its connections open."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after a pause."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        if how is signal.SIGTERM:
            self._process.send_signal(signal.SIGCONT)
        self._process.wait(timeout=60)
        self._process = None


@contextmanager
def running_broker(directory: Path) -> Iterator[str]:
    """The bootstrap servers of a broker: the one that the environment names, or else one of our own."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        yield given
        return
    broker = Broker(directory, options=QUICK_START).start()
    try:
        yield broker.bootstrap_servers
    finally:
        broker.kill()


def _libraries() -> Path:
    """The broker's jars, fetched by Maven the first time."""
    if not (LIBRARIES / "complete").exists():
        command = ["mvn", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={LIBRARIES}"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise RuntimeError(
                "a broker is needed: set KAFKA_BOOTSTRAP_SERVERS, or install Java 17 and Maven"
            ) from error
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"Maven could not fetch the broker: {error.stdout}{error.stderr}") from error
        (LIBRARIES / "complete").touch()
    return LIBRARIES


def _java(libraries: Path, heap: str, options: Sequence[str]) -> list[str]:
    return ["java", *options, f"-Xmx{heap}", f"-Xms{heap}", "-XX:+UseSerialGC", "-cp", f"{libraries}/*"]


def _answers(port: int) -> bool:
    """Whether it answers an ApiVersions request: a listening socket alone is not a broker yet."""
    request = b"\x00\x12\x00\x00\x00\x00\x00\x01\x00\x05probe"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(len(request).to_bytes(4, "big") + request)
            return len(connection.recv(4)) == 4
    except OSError:
        return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
