"""What an operation yields, shown to a person at a terminal: answers to standard output, the rest to standard error.

Owns that nothing of what is shown commands the terminal, or looks like more than it is: events and rejections hold
whatever somebody sent. Control characters are written as JSON escapes them, so JSON stays what it was.
"""

import base64
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table as RichTable
from rich.text import Text as RichText

from meterline.output import Failure, File, Output, Progress, Table, Text

WIDTH_MIN = 120  # of what is written to a file or a pipe
console = Console(width=None if sys.stdout.isatty() else WIDTH_MIN)
errors = Console(stderr=True)
_LINE_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that a terminal obeys, and those that end a line or turn its direction."""
_CONTROLS = re.compile(rf"(?![\n\t]){_LINE_CONTROLS.pattern}")


def render(outputs: Iterator[Output], into: Path | None = None) -> None:
    """Show outputs as they come: bars, texts, tables. Ends the process with status 1 on a failure.

    With `into`, texts and files are written there instead of to standard output.
    """
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=errors) as bars:
        tasks = {task.description: task.id for task in bars.tasks}
        for output in outputs:
            match output:
                case Progress(step=step, done=done, total=total):
                    if step not in tasks:
                        tasks[step] = bars.add_task(step, total=total)
                    bars.update(tasks[step], completed=done, total=total)
                case Text(text=text):
                    if into:
                        into.write_text(text, encoding="utf-8")
                    else:
                        click.echo(escaped(text))
                case File(content=content):
                    whole = base64.b64decode(content)
                    if into:
                        into.write_bytes(whole)
                    else:
                        sys.stdout.buffer.write(whole)
                        sys.stdout.buffer.flush()
                case Table():
                    console.print(_table(output))
                case Failure(message=message):
                    bars.stop()
                    print_error(message)
                    sys.exit(1)


def print_error(message: str) -> None:
    """Show what went wrong."""
    errors.print(RichText(escaped(message), style="red"), soft_wrap=True)  # a str would be taken for markup


def _table(output: Table) -> RichTable:
    table = RichTable(title=output.title, title_justify="left")
    for column in output.columns:
        number = column in output.numbers
        table.add_column(column, justify="right" if number else "left", no_wrap=number)
    for row in output.rows:
        table.add_row(*(RichText(escaped(cell, _LINE_CONTROLS)) for cell in row))
    return table


def escaped(text: str, controls: re.Pattern[str] = _CONTROLS) -> str:
    r"""Lines without other control characters: these are written as JSON escapes them.

    >>> print(escaped("a\x1b[2J\x9bm"))
    a\u001b[2J\u009bm
    """
    return controls.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
