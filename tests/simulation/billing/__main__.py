"""Months of billing from seeds, until one of them goes wrong; a failing seed is the bug report.

    python -m tests.simulation.billing [--seeds 100] [--first 1] [--steps 110]
    python -m tests.simulation.billing --seed 17

Prints what each seed did. Of one that fails: the steps that led there, and what is stored that was not foretold.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from stores.postgres import embedded_server, engine_for, migrate
from tests.simulation.billing.simulation import STEPS, WrongError, run


@contextmanager
def databases() -> Iterator[tuple[sa.Engine, str]]:
    """A server, with a database `template` of the newest schema: an engine for commands, and its URL."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as another user where we are root
        with embedded_server(Path(folder) / "postgres") as url:
            admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
            with admin.connect() as connection:
                connection.execute(sa.text("CREATE DATABASE template"))
            template = engine_for(sa.make_url(url).set(database="template").render_as_string(hide_password=False))
            migrate(template)
            template.dispose()
            yield admin, url
            admin.dispose()


@contextmanager
def fresh(admin: sa.Engine, url: str, name: str) -> Iterator[sa.Engine]:
    """A database with the newest schema, dropped at the end."""
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE template"))
        connection.execute(sa.text(f"ALTER DATABASE {name} SET synchronous_commit = off"))  # sessions die, the disk not
    engine = engine_for(sa.make_url(url).set(database=name).render_as_string(hide_password=False))
    try:
        yield engine
    finally:
        engine.dispose()
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


def main() -> int:
    """Run seeds; 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--steps", type=int, default=STEPS)
    wanted = parser.parse_args()
    seeds = [wanted.seed] if wanted.seed is not None else range(wanted.first, wanted.first + wanted.seeds)
    failed, sums = [], {name: Counter[str]() for name in ("outcomes", "crashes", "died_at", "orders")}
    with databases() as (admin, url):
        for seed in seeds:
            began = time.perf_counter()
            try:
                told = run(seed, lambda: fresh(admin, url, "simulated"), admin, steps=wanted.steps)
            except WrongError as wrong:
                failed.append(seed)
                print(wrong, flush=True)  # noqa: T201
                continue
            for name, total in sums.items():
                total.update(getattr(told, name))
            spent = time.perf_counter() - began
            did = (
                f"{len(told.log)} steps, {told.crashes.total()} crashes, {told.replays} replays, {told.entries} entries"
            )
            print(f"seed {seed}: {did}, {spent:.1f} s, {told.hash[:12]}", flush=True)  # noqa: T201
    for name, total in sums.items():
        print(f"\n{name}: " + ", ".join(f"{key} {count}" for key, count in sorted(total.items())))  # noqa: T201
    print(f"\n{len(failed)} seeds failed: {failed}" if failed else "\nno seed failed")  # noqa: T201
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
