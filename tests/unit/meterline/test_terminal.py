"""What a terminal gets to see of texts that somebody sent."""

import json
import unicodedata

import orjson
import pytest

from meterline.output import Failure, Table, Text
from meterline.terminal import render

HOSTILE = "\x1b[2J\x07 \r\x9b5m \x00\x7f\u202e\u2028 [red]x[/y] :smile:"


def commands(shown: str) -> set[str]:
    """The characters that a terminal obeys, or that turn or end a line."""
    return {each for each in shown if unicodedata.category(each) in {"Cc", "Cf", "Zl", "Zp"}} - {"\n"}


def test_a_cell_is_one_line_and_commands_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing in a cell is a command, a line or markup; it can be told what it was."""
    render(iter([Table(title="t", columns=("a",), rows=[(HOSTILE,), ("x\ny\t\u00e4\U0001f600",)])]))
    shown = capsys.readouterr().out
    assert not commands(shown)
    assert r"\u001b[2J\u0007 \u000d\u009b5m \u0000\u007f\u202e\u2028 [red]x[/y] :smile:" in shown
    assert "x\\u000ay\\u0009\u00e4\U0001f600" in shown


def test_json_stays_what_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines of JSON are lines of the same JSON: a program may read them."""
    rows = [{"raw": HOSTILE}, {"raw": "\x85\n"}]
    render(iter([Text(text="\n".join(orjson.dumps(row).decode() for row in rows))]))
    shown = capsys.readouterr().out
    assert not commands(shown)
    assert [json.loads(line) for line in shown.splitlines()] == rows


def test_a_failure_commands_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor is it markup."""
    with pytest.raises(SystemExit):
        render(iter([Failure(message=f"no subject {HOSTILE}\nat all")]))
    shown = capsys.readouterr().err
    assert not commands(shown)
    assert "[red]x[/y] :smile:\nat all" in shown
