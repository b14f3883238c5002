"""Meterline and its peers side by side: the same topic, payload and cores, in one run.

    python -m benchmarks.stream [--events 2000000] [--smoke] [--only NAME ...] [--table]

Each system in turn reads a Kafka topic from its start to its end, as processes of its own. Timed is from the first
fetch to the last result; start-up is left out. Peers' packages are installed at first use under the user's cache
directory.
"""

import argparse

from benchmarks.stream.catalogue import REFERENCE, SYSTEMS
from benchmarks.stream.payload import Payload
from benchmarks.stream.run import run
from benchmarks.stream.tables import keep, markdown, read, show, with_ratios

EVENTS, FIRST_EVENTS = 2_000_000, 100_000
SMOKE_EVENTS, SMOKE_FIRST_EVENTS = 20_000, 5_000


def main() -> None:
    """Run the benchmark, or print the README's table from its last result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--first-events", type=int, default=FIRST_EVENTS, help="how many the slow systems read")
    parser.add_argument("--smoke", action="store_true", help="small, and nothing is kept")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="systems whose name begins so; nothing is kept")
    parser.add_argument(
        "--table", action="store_true", help="print the table of the last run as Markdown, and run nothing"
    )
    options = parser.parse_args()
    if options.table:
        print(markdown(read()))
        return
    events, first = (SMOKE_EVENTS, SMOKE_FIRST_EVENTS) if options.smoke else (options.events, options.first_events)
    systems = [each for each in SYSTEMS if not options.only or each.name.startswith(tuple(options.only))]
    result = with_ratios(run(Payload(events), first, systems), REFERENCE)
    show(result)
    if not options.smoke and not options.only:
        keep(result)


if __name__ == "__main__":
    main()
