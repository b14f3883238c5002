"""Where OpenMeter's own clients live: installed at first use under the user's cache directory, apart from our packages."""

import subprocess
from pathlib import Path

from tests.servers.installed import folder_of, python_with

FOLDER = Path(__file__).parent


def python() -> Path:
    """The interpreter that has the Python client."""
    return python_with("openmeter", FOLDER / "requirements.txt")


def node() -> Path:
    """A folder from which node finds the JavaScript client."""
    package = FOLDER / "package.json"
    folder = folder_of("openmeter-js", package)
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_bytes(package.read_bytes())
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True)
        (folder / "complete").touch()
    return folder
