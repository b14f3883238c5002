"""Where a step dies: before any statement that reaches PostgreSQL, at a commit, or behind one whose answer gets lost.

Statements are counted at the driver, so that COPY, savepoints and what libraries send are among them.
"""

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import sqlalchemy as sa

DIES, KILLED, LOST = "the process dies", "the server ends the session", "the answer to the commit is lost"
HOWS = (DIES, KILLED, LOST)


class CrashError(Exception):
    """The process that did the step is no more."""


@dataclass
class Crashes:
    """Counts what an engine sends, and crashes at a statement where it is told to."""

    admin: sa.Engine
    """Ends sessions."""
    at: Counter[str] = field(default_factory=Counter)
    """How often a step died before a statement, by its beginning."""
    seen: int = 0
    commits: int = 0
    crashed: str | None = None
    _left: int | None = None
    _how: str = DIES
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, engine: sa.Engine) -> None:
        """Count what this engine sends."""
        sa.event.listen(engine, "connect", lambda connection, _: self._count(connection))
        commit = engine.dialect.do_commit

        def do_commit(connection: Any) -> None:
            lost = self._how == LOST
            if not lost:
                self._before(
                    connection.driver_connection if hasattr(connection, "driver_connection") else connection, "COMMIT"
                )
            commit(connection)
            with self._lock:
                self.commits += 1
            if lost:
                self._before(None, "COMMIT")

        engine.dialect.do_commit = do_commit  # type: ignore[method-assign]

    @contextmanager
    def armed(self, countdown: int, how: str) -> Iterator[None]:
        """Within this, the statement with this number is the last one; of lost answers, it is the commit's number."""
        with self._lock:
            self._left, self._how, self.crashed, self.seen, self.commits = countdown, how, None, 0, 0
        try:
            yield
        finally:
            with self._lock:
                self._left, self._how = None, DIES

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Within this, statements are counted from zero."""
        with self._lock:
            self._left, self.crashed, self.seen, self.commits = None, None, 0, 0
        yield

    def _count(self, connection: psycopg.Connection[Any]) -> None:
        crashes = self

        class Counted(psycopg.Cursor[Any]):
            def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
                crashes._statement(self.connection, query)
                return super().execute(query, *arguments, **options)

            def executemany(self, query: Any, *arguments: Any, **options: Any) -> Any:
                crashes._statement(self.connection, query)
                return super().executemany(query, *arguments, **options)

            def copy(self, statement: Any, *arguments: Any, **options: Any) -> Any:
                crashes._statement(self.connection, statement)
                return super().copy(statement, *arguments, **options)

        connection.cursor_factory = Counted

    def _statement(self, connection: Any, query: Any) -> None:
        if self._how != LOST:
            self._before(connection, str(query))

    def _before(self, connection: Any, text: str) -> None:
        with self._lock:
            self.seen += 1
            if self._left is None:
                return
            self._left -= 1
            if self._left:
                return
            self.crashed = beginning(text)
            self.at[self.crashed] += 1
        if self._how != KILLED or connection is None:
            raise CrashError(f"{self._how} at: {self.crashed}")
        with self.admin.connect() as other:
            other.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": connection.info.backend_pid})


def beginning(statement: str) -> str:
    """What a statement does to which table.

    >>> beginning("INSERT INTO outbox (id, tenant) VALUES (1)"), beginning("COPY invoices (id) FROM STDIN")
    ('INSERT INTO outbox', 'COPY invoices')
    """
    text = " ".join(statement.split())
    found = re.match(
        r"(INSERT INTO|UPDATE|DELETE FROM|COPY|TRUNCATE|CREATE TEMP TABLE(?: IF NOT EXISTS)?) ([\w.]+)", text
    )
    if found:
        return f"{found[1]} {found[2]}"
    if text.startswith(("SELECT", "WITH")):
        table = re.search(r"(set_config|current_setting|pg_advisory_xact_lock\w*|hold)", text)
        of = re.search(r" FROM ([a-z_]+)", text)
        return "SELECT " + (table[1] if table else of[1] if of else text[7:40])
    return text[:30]
