"""Python environments of their own, for programs of others: made at first use under the user's cache directory."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "meterline"


def folder_of(name: str, *made_of: Path) -> Path:
    """Where something is installed: another place for other contents."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in made_of)).hexdigest()
    return CACHE / f"{name}-{digest[:12]}"


def python_with(name: str, requirements: Path) -> Path:
    """The interpreter of an environment that has what a file of requirements lists."""
    folder = folder_of(name, requirements)
    interpreter = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(requirements)], check=True)
        (folder / "complete").touch()
    return interpreter
