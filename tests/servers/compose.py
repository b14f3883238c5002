"""docker-compose.yml as the tests read it: its services, with the defaults of its variables, and what they execute."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"


def services() -> dict[str, Any]:
    """The services by name, with nothing set in the environment."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", FILE.read_text())
    read: dict[str, Any] = yaml.safe_load(text.replace("$$", "$"))["services"]
    return read


def ours() -> dict[str, Any]:
    """The services that run Meterline itself."""
    return {name: service for name, service in services().items() if service["image"].startswith("meterline")}


def entrypoint(stage: str = "runtime") -> list[str]:
    """What a container of a stage of our image executes, before the service's command."""
    found: list[str] = json.loads(re.findall(r"^ENTRYPOINT (.*)$", stage_of(stage), re.MULTILINE)[-1])
    return found


def stage_of(stage: str) -> str:
    """The lines of the Dockerfile between a stage's FROM and the next one."""
    return re.split(rf"^FROM \S+ AS {stage}$", DOCKERFILE.read_text(), flags=re.MULTILINE)[1].split("\nFROM ")[0]


def command(name: str, options: Mapping[str, str] | None = None) -> list[str]:
    """What a service executes, with other values for some of its options."""
    executed = entrypoint() + services()[name].get("command", [])
    for option, value in (options or {}).items():
        executed[executed.index(option) + 1] = value
    return executed


def option(name: str, wanted: str) -> str:
    """The value of an option in a service's command."""
    executed = command(name)
    return executed[executed.index(wanted) + 1]
