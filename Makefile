# Every command of the project. `make help` lists them.
PYTHON ?= python3
# each has a broker, an engine and a database of its own
TEST_PROCESSES ?= 2
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench bench-archive bench-finalise bench-gateway bench-invoicing bench-ledger bench-outbox bench-query bench-soak bench-stream bench-worker lock clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## make the virtual environment and install what constraints.txt pins

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON="; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev]'
	@$(BIN)/python -m meterline.compile
	@touch $@

demo: setup ## meter and bill the flights that left New York in 2013
	@$(BIN)/python -m examples.flights.demo

test: setup ## run all tests, on real stores; Java 17 and Maven needed
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

check: setup ## style, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup ## run the benchmarks and write their results
	@$(BIN)/python -m benchmarks.import_flights
	@$(BIN)/python -m benchmarks.rating

bench-worker: setup ## a worker that knows 20 million identities: rate, memory, restart; and freshness at low load
	@$(BIN)/python -m benchmarks.worker

bench-stream: setup ## Meterline, Flink, Quix Streams and Faust on one Kafka topic, side by side; Java 17 and Maven needed
	@$(BIN)/python -m benchmarks.stream

bench-gateway: setup ## the HTTP gateway beside a plain FastAPI route, over one broker; Java 17 and Maven needed
	@$(BIN)/python -m benchmarks.gateway

bench-query: setup ## a subject's month by the hour, over 10 million rollups and from raw events, through HTTP
	@$(BIN)/python -m benchmarks.query

bench-outbox: setup ## events into the outbox, and webhooks out of it to receivers on this machine
	@$(BIN)/python -m benchmarks.outbox

bench-ledger: setup ## postings a second with all rules and the chain, and how fast the ledger is verified
	@$(BIN)/python -m benchmarks.ledger

bench-invoicing: setup ## a million customers with five charges each, from charges to issued invoices
	@$(BIN)/python -m benchmarks.invoicing

bench-archive: setup ## entries a second into an archive, and how fast it is verified without a database
	@$(BIN)/python -m benchmarks.archive

bench-finalise: setup ## how long one invoice takes to be finalised, at 50 requests a second
	@$(BIN)/python -m benchmarks.finalise

bench-soak: setup ## ten minutes of steady load: memory, latencies, and every event counted; Java 17 and Maven needed
	@$(BIN)/python -m benchmarks.soak

lock: setup ## pin what is installed now as constraints.txt
	@$(BIN)/python -m pip freeze --exclude-editable > constraints.txt

clean: ## remove the virtual environment and what the tools left behind
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
