"""The JSON Schemas of price books and contracts, with which an editor completes and checks their YAML.

Owns that they say the same as the models: they are made from them. What is wrong between keys only `meterline price
validate` tells.
"""

import orjson
from pydantic import BaseModel

from schemas.contract import Contracts
from schemas.price_book import PriceBook


def price_book_schema() -> str:
    """The schema of a price book's file, as JSON text with a newline at its end."""
    return _schema(PriceBook, "A Meterline price book")


def contracts_schema() -> str:
    """The schema of a file of contracts, as JSON text with a newline at its end."""
    return _schema(Contracts, "Meterline contracts")


def _schema(model: type[BaseModel], title: str) -> str:
    schema = model.model_json_schema(mode="validation")
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}
    return orjson.dumps(schema, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode() + "\n"
