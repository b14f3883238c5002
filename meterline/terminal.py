"""What an operation yields, shown to a person at a terminal: answers to standard output, the rest to standard error."""

import base64
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table as RichTable

from meterline.output import Failure, File, Output, Progress, Table, Text

WIDTH_MIN = 120  # of what is written to a file or a pipe
console = Console(width=None if sys.stdout.isatty() else WIDTH_MIN)
errors = Console(stderr=True)


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
                        click.echo(text)
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
                    errors.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
                    sys.exit(1)


def _table(output: Table) -> RichTable:
    table = RichTable(title=output.title, title_justify="left")
    for column in output.columns:
        number = column in output.numbers
        table.add_column(column, justify="right" if number else "left", no_wrap=number)
    for row in output.rows:
        table.add_row(*row)
    return table
