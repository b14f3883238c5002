"""`meterline bill`, killed again and again, against a run that was left alone."""

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx

from tests.e2e.conftest import Server
from tests.e2e.test_serve import event

EXAMPLE = """
book: example
version: 1
effective_at: 2013-01-01
currency: USD
tax: {mode: exclusive, name: VAT, rate_percent: 19}
default_plan: standard
plans:
  - id: standard
    charges:
      - {id: base, model: flat, amount: 10}
      - {id: calls, model: graduated, meter: calls, tiers: [{up_to: 10, unit_price: 0.1}, {up_to: null, unit_price: 0.05}]}
      - {id: bytes, model: package, meter: bytes, size: 100, price: 0.333}
"""


def prepared(server: Server, folder: Path) -> None:
    """Usage of January and February, prices, and no contracts: every subject is a customer of its own."""
    files = {
        "meters.yaml": Path(folder / "meters.yaml"), "book.yaml": folder / "book.yaml",
        "contracts.yaml": folder / "contracts.yaml", "usage.ndjson": folder / "usage.ndjson",
    }  # fmt: skip
    from tests.e2e.conftest import METERS

    files["meters.yaml"].write_text(METERS)
    files["book.yaml"].write_text(EXAMPLE)
    files["contracts.yaml"].write_text("contracts: []")
    files["usage.ndjson"].write_text("\n".join(json.dumps(event(number)) for number in range(200)))
    server.start()  # a command asks it in a tenth of the time that it takes to open the stores itself
    server.run("meters", "apply", str(files["meters.yaml"]))
    server.run("price", "apply", str(files["book.yaml"]))
    server.run("contracts", "apply", str(files["contracts.yaml"]))
    server.run("import", str(files["usage.ndjson"]))


def lines(text: str) -> list[str]:
    """The rows of the invoice table in what a command prints."""
    return [line for line in text.splitlines() if line.startswith("│")]


def kill_in_a_run(server: Server, step: str, done: int, after_s: float) -> None:
    """Ask for a bill run, and kill the server so many seconds after the run says that it has come to a step."""
    url = f"{server.url}/api/v1/operations/bill"
    with httpx.stream("POST", url, json={"period": "2013-01"}, timeout=60, verify=False) as answer:
        told = (json.loads(line) for line in answer.iter_lines())
        next((each for each in told if (each.get("step"), each.get("done")) == (step, done)), None)
        time.sleep(after_s)  # there is no event within a step
        server.kill()


def test_a_bill_run_that_is_killed_again_and_again_bills_once(server: Server, tmp_path: Path) -> None:
    """Kill -9 ever later in the run; the run that gets through posts what one run posts, and no run posts more."""
    prepared(server, tmp_path)
    asker = [sys.executable, "-m", "meterline", "bill", "--period", "2013-01", "--data", str(server.directory)]
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(asker, check=True, capture_output=True, timeout=0.4)  # it is killed then
    server.kill()
    server.start()
    for step, done, after_s in (("cut", 0, 0), ("rate", 0, 0), ("rate", 1, 0), ("rate", 1, 0.03), ("rate", 1, 0.06)):
        kill_in_a_run(server, step, done, after_s)
        server.start()
    billed = lines(server.run("bill", "--period", "2013-01"))
    assert len(billed) == 8  # seven customers and the sum
    assert lines(server.run("bill", "--period", "2013-01")) == billed
    assert lines(server.run("invoices", "list", "--period", "2013-01")) == billed
    # 200 calls of seven subjects; 28 or 29 calls each, of n + 0.5 bytes for n = s, s + 7, s + 14 ...
    expected = []
    for subject in range(7):
        numbers = range(subject, 200, 7)
        calls = 100 * 10 // 100 + (len(numbers) - 10) * 5
        packages = -(-int(sum(2 * n + 1 for n in numbers)) // 200)
        cents = 1000 + (100 + calls - 10) + int(packages * 33.3 + 0.5)
        expected.append(f"{cents / 100:,.2f}")
    assert [line.split("│")[5].strip() for line in billed[:-1]] == expected
    assert "faults" not in server.run("audit")


def test_bad_books_and_contracts_apply_nothing(server: Server, tmp_path: Path) -> None:
    """One message with all faults; the same version with other content is refused; nothing is half applied."""
    prepared(server, tmp_path)
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        EXAMPLE.replace("currency: USD", "currency: XXX")
        .replace("meter: calls", "meter: nothing")
        .replace("up_to: 10,", "up_to: -1,")
    )
    complaint = server.run("price", "apply", str(bad), status=1)
    for part in ("currency", "'XXX'", "plans[0].charges[1].meter", "'nothing'", "plans[0].charges[1].tiers[0].up_to"):
        assert part in complaint
    bad.write_bytes(b"\xff\xfe")
    assert "allowed: UTF-8" in server.run("price", "apply", str(bad), status=1)
    bad.write_text(EXAMPLE.replace("amount: 10", "amount: 11"))
    assert "version 1" in server.run("price", "apply", str(bad), status=1)
    bad.write_text("contracts: [{customer: a, name: A, subjects: [s1], plan: gold, starts_on: 2013-01-01}]")
    assert "gold" in server.run("contracts", "apply", str(bad), status=1)
    assert "stored before" in server.run("price", "apply", str(tmp_path / "book.yaml"))
