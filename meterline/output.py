"""What an operation tells its caller, step by step: the same whether it runs in this process or in a server.

An operation is a function `(System, **parameters) -> Iterator[Output]`. Outputs are plain values, so that they can
travel as lines of JSON from a running server to the command that asked.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Output(BaseModel):
    model_config = ConfigDict(frozen=True)


class Progress(_Output):
    """How far a step is, in its own unit."""

    kind: Literal["progress"] = "progress"
    step: str
    done: int
    total: int


class Text(_Output):
    """Lines for a person or, for `--format json`, for a program."""

    kind: Literal["text"] = "text"
    text: str


class Table(_Output):
    """A table; cells are texts, numbers right-aligned by the columns named in `numbers`."""

    kind: Literal["table"] = "table"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[str] = ()


class File(_Output):
    """A whole file: bytes, in base64 so that they travel as JSON."""

    kind: Literal["file"] = "file"
    name: str
    content: str


class Failure(_Output):
    """The operation ended here, and why. Nothing follows."""

    kind: Literal["failure"] = "failure"
    message: str


Output = Progress | Text | Table | File | Failure

_adapter: TypeAdapter[Any] = TypeAdapter(Annotated[Output, Field(discriminator="kind")])


def encode(output: Output) -> bytes:
    """One line of JSON."""
    return output.model_dump_json().encode() + b"\n"


def decode(line: str | bytes) -> Output:
    """The output on a line of JSON.

    >>> decode(encode(Text(text="done")))
    Text(kind='text', text='done')
    """
    output: Output = _adapter.validate_json(line)
    return output
