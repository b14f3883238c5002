"""What `meterline rate --explain` says of the example, whole, as a person reviews it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from meterline.cli import cli

GOLDEN = Path(__file__).with_name("rate_explain.txt")
ROOT = Path(__file__).parents[2]


def test_an_explanation_reads_like_the_price_book(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every slice, discount, minimum, manual line, credit and tax of four customers stands as reviewed."""
    monkeypatch.chdir(ROOT)
    directory = Path("examples/pricing")
    files = (
        "--book",
        directory / "book.yaml",
        "--contracts",
        directory / "contracts.yaml",
        "--usage",
        directory / "usage.csv",
    )
    days = ("--from", "2026-01-01", "--to", "2026-02-01")
    done = CliRunner().invoke(cli, ["rate", *map(str, files), *days, "--prepaid", "acme=20.00", "--explain"])
    assert (done.exit_code, done.output) == (0, GOLDEN.read_text())
