"""The composition root: settings, command line, and the runtime that wires the stages. It decides nothing."""

import stores.memory  # noqa: F401  before polars
