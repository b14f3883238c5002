"""What the peers run on, installed at first use under the user's cache directory: Python packages, and Flink's jars."""

import subprocess
from pathlib import Path

from tests.servers.installed import folder_of, python_with
from tests.servers.kafka import LIBRARIES

PEERS = Path(__file__).with_name("peers")
_JARS = ("flink-table-runtime", "flink-connector-kafka")


def python() -> Path:
    """The interpreter of the Python peers' environment."""
    return python_with("peers", PEERS / "requirements.txt")


def flink() -> str:
    """The class path of Flink and of our job, which is compiled here."""
    pom, job = PEERS / "flink" / "pom.xml", PEERS / "flink" / "HourlyUsage.java"
    folder = folder_of("flink", pom, job)
    class_path = f"{folder}/classes:{folder}/libraries/*"
    if not (folder / "complete").exists():
        command = ["mvn", "-q", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={folder}/libraries"]
        subprocess.run(command, check=True)
        subprocess.run(["javac", "-cp", class_path, "-d", f"{folder}/classes", str(job)], check=True)
        (folder / "complete").touch()
    return class_path


def versions() -> dict[str, str]:
    """The versions of the peers, of the broker, and of Java."""
    pinned = [line.split("==") for line in (PEERS / "requirements.txt").read_text().splitlines() if "==" in line]
    peers = {f"peers' {package}": version for package, version in pinned}
    jars = [path.stem for path in Path(flink().split(":")[0]).with_name("libraries").glob("*.jar")]
    flinks = {name: jar.removeprefix(f"{name}-") for name in _JARS for jar in jars if jar.startswith(f"{name}-")}
    java = subprocess.run(["java", "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]
    return {**peers, **flinks, "kafka broker": LIBRARIES.name.removeprefix("kafka-"), "java": java}
