"""What an operation yields, shown to a person at a terminal: answers to standard output, the rest to standard error."""

import sys
from collections.abc import Iterator

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table as RichTable

from meterline.output import Failure, Output, Progress, Table, Text

WIDTH_MIN = 120  # of what is written to a file or a pipe
console = Console(width=None if sys.stdout.isatty() else WIDTH_MIN)
errors = Console(stderr=True)


def render(outputs: Iterator[Output]) -> None:
    """Show outputs as they come: bars, texts, tables. Ends the process with status 1 on a failure."""
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
                    click.echo(text)
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
