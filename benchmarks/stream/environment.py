"""What the peers run on, installed at first use under the user's cache directory: Python packages, and Flink's jars."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from tests.servers.kafka import LIBRARIES

PEERS = Path(__file__).with_name("peers")
_JARS = ("flink-table-runtime", "flink-connector-kafka")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "meterline"


def python() -> Path:
    """The interpreter of the Python peers' environment."""
    requirements = PEERS / "requirements.txt"
    folder = _folder("peers", requirements)
    interpreter = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(requirements)], check=True)
        (folder / "complete").touch()
    return interpreter


def flink() -> str:
    """The class path of Flink and of our job, which is compiled here."""
    pom, job = PEERS / "flink" / "pom.xml", PEERS / "flink" / "HourlyUsage.java"
    folder = _folder("flink", pom, job)
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


def _folder(name: str, *made_of: Path) -> Path:
    """Where it is installed: another place for other contents."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in made_of)).hexdigest()
    return CACHE / f"{name}-{digest[:12]}"
