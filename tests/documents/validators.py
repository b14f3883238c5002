"""Validators of e-invoices that are none of ours, as processes: from Maven Central, fetched at first use.

`en16931_complaints` runs the schemas of UBL and CII and the official rules of EN 16931 (phive). `facturx_report` runs
Mustang, which asks veraPDF whether a file is PDF/A-3 and checks the XML inside.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.servers.installed import folder_of

HERE = Path(__file__).parent


def en16931_complaints(files: Sequence[Path]) -> dict[str, list[str]]:
    """For each XML file that was checked by both layers, schema and rules, the complaints about it."""
    complaints: dict[str, list[str]] = {}
    for row in _run("en16931", "En16931Rules.java", files).splitlines():
        kind, file, text = row.split("\t")
        if kind == "checked":
            assert text == "2", "a schema, and the rules"
            complaints[Path(file).name] = []
        else:
            complaints[Path(file).name].append(text)
    return complaints


def facturx_reports(files: Sequence[Path]) -> dict[str, tuple[bool, str]]:
    """For each PDF file, whether it is valid in every respect, and the report."""
    reports: dict[str, tuple[bool, str]] = {}
    for part in _run("facturx", "FacturX.java", files).split("checked\t")[1:]:
        head, _, report = part.partition("\n")
        file, valid = head.split("\t")
        reports[Path(file).name] = (valid == "true", report)
    return reports


def _run(name: str, program: str, files: Sequence[Path]) -> str:
    pom = HERE / f"{name}.pom.xml"
    folder = folder_of(name, pom)
    if not (folder / "complete").exists():
        command = ["mvn", "-q", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
        subprocess.run(command, check=True, capture_output=True, text=True)
        (folder / "complete").touch()
    command = [
        "java",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-cp",
        f"{folder}/*",
        str(HERE / program),
        *map(str, files),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
