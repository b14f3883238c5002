"""The rules of the house that no linter knows."""

import ast
import doctest
import importlib
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = ("ingest", "aggregation", "rating", "invoicing")
PACKAGES = ("schemas", "stores", *STAGES, "meterline")
SHELLS = {"app.py", "api.py", "store.py", "cli.py", "client.py"}
OUTSIDE = {
    "os", "io", "socket", "subprocess", "shutil", "tempfile", "pathlib", "threading", "asyncio", "concurrent", "logging",
    "time", "random", "secrets", "uuid", "sqlalchemy", "psycopg", "alembic", "clickhouse_connect", "chdb", "httpx",
    "starlette", "uvicorn", "stores",
}  # fmt: skip
FILE_LINES_MAX = 330  # ratchets: lower them when you can
FUNCTION_LINES_MAX = 70

SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
CORE = [path for path in SOURCES if path.parts[len(ROOT.parts)] in {"schemas", *STAGES} and path.name not in SHELLS]
MONEY = [path for path in SOURCES if path.parts[len(ROOT.parts)] in {"rating", "invoicing", "schemas"}]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def named(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(ROOT)))


@named(CORE)
def test_core_files_do_no_io_and_read_no_clock(path: Path) -> None:
    """What is not named app, api, store, cli or client is pure: no driver, no file, no thread, no clock, no chance."""
    for node in ast.walk(tree(path)):
        modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not OUTSIDE & {module.split(".")[0] for module in modules}, ast.unparse(node)
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"now", "utcnow", "today"}, ast.unparse(node)


@named(MONEY)
def test_no_float_near_a_quantity_or_money(path: Path) -> None:
    """No float literal, no call of float, no float type of polars."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant):
            assert not isinstance(node.value, float), f"line {node.lineno}: {node.value}"
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) != "float", f"line {node.lineno}"
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"Float32", "Float64"}, f"line {node.lineno}"


@named(SOURCES)
def test_a_file_has_one_idea_and_a_function_fits_a_screen(path: Path) -> None:
    """Lengths only go down; every module says what it decides."""
    module = tree(path)
    assert ast.get_docstring(module), "no module docstring"
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES_MAX, node.name


@named(TESTS)
def test_every_test_says_what_it_holds(path: Path) -> None:
    """A test without a sentence is a test nobody can judge."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            assert ast.get_docstring(node), node.name


@named([path for path in SOURCES if "migrations" not in path.parts and path.name != "__main__.py"])
def test_the_examples_in_docstrings_are_true(path: Path) -> None:
    """Every example in a docstring is run."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_no_other_distribution_provides_a_name_of_ours() -> None:
    """Our top-level names are common words; another package with one of them would shadow us, or we it."""
    provided = packages_distributions()
    assert {name: provided.get(name) for name in PACKAGES if set(provided.get(name) or ()) - {"meterline"}} == {}


def test_every_package_is_listed() -> None:
    """A folder that is not in pyproject.toml would be missing from what is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in {name.partition(".")[0] for name in listed}
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert found == listed
