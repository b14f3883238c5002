"""What the peers run on, installed at first use under the user's cache directory: a virtual environment, and Flink's jars."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).with_name("peers")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "meterline"


def python() -> Path:
    """The interpreter of the Python peers' environment."""
    requirements = PEERS / "requirements.txt"
    folder = _folder("peers", requirements)
    interpreter = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
        subprocess.run(install, check=True)
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


def _folder(name: str, *made_of: Path) -> Path:
    """Where it is installed: another place for other contents."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in made_of)).hexdigest()
    return CACHE / f"{name}-{digest[:12]}"
