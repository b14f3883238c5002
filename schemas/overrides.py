"""What a contract changes of a plan's charges: keys of some, charges less, charges more.

Owns that an override is kept as what it means and not as it was written: its numbers are plain text, as in every
canonical form. An override holds the keys of a charge of any model; whether its charge has them shows when it is laid
over that charge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, GetCoreSchemaHandler, Tag, TypeAdapter, create_model
from pydantic_core import CoreSchema, core_schema

from schemas.charges import MODELS, Charge, PercentageTier, Tier
from schemas.exact import Frozen, some

CHARGE: TypeAdapter[Charge] = TypeAdapter(Charge)


def _kind_of_tiers(tiers: Any) -> str:
    listed = tiers if isinstance(tiers, list | tuple) else []
    percentages = any(
        isinstance(tier, PercentageTier) or (isinstance(tier, Mapping) and "rate_percent" in tier) for tier in listed
    )
    return "<percentage tiers>" if percentages else "<tiers>"


_AnyTiers = Annotated[
    Annotated[tuple[Tier, ...], BeforeValidator(some), Tag("<tiers>")]
    | Annotated[tuple[PercentageTier, ...], BeforeValidator(some), Tag("<percentage tiers>")],
    Discriminator(_kind_of_tiers),
]


def _keys_of_all_models() -> dict[str, Any]:
    fields = {name: field for model in MODELS.values() for name, field in model.model_fields.items()}
    kinds = {name: Annotated[(field.annotation, *field.metadata, None)] for name, field in fields.items()}
    return {name: kind for name, kind in kinds.items() if name not in {"id", "model"}} | {"tiers": _AnyTiers}


ChargeOverride = create_model(
    "ChargeOverride",
    __base__=Frozen,
    __doc__="Keys that replace those of a plan's charge. Prices are numbers in the contract's currency.",
    **{name: (kind, None) for name, kind in _keys_of_all_models().items()},  # type: ignore[call-overload]
)


class _AsKeys:
    """An override is checked as a ChargeOverride and kept as a mapping of the keys that were given, in plain values."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        plain = core_schema.plain_serializer_function_ser_schema(lambda keys: keys)
        return core_schema.no_info_after_validator_function(
            _given_keys, handler.generate_schema(ChargeOverride), serialization=plain
        )


def _given_keys(override: Frozen) -> dict[str, Any]:
    dumped = override.model_dump(mode="json", exclude_defaults=True)
    return {name: dumped.get(name) for name in sorted(override.model_fields_set)}


Override = Annotated[dict[str, Any], _AsKeys]


@dataclass(frozen=True)
class Layer:
    """What a contract, or one of its amendments, changes of a plan's charges."""

    charges: Mapping[str, Mapping[str, Any]]
    remove: tuple[str, ...] = ()
    add: tuple[Charge, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.charges or self.remove or self.add)

    def written(self) -> dict[str, Any]:
        """What it says, in plain values: equal for layers that mean the same."""
        added = [charge.model_dump(mode="json", exclude_defaults=True) for charge in self.add]
        return {"charges": self.charges, "remove": sorted(self.remove), "add": added}


def overlaid(charges: Sequence[Charge], layer: Layer) -> tuple[Charge, ...]:
    """The charges with a layer over them: keys replaced, charges removed, charges added at the end, in this order.

    What it says of a charge that is not there says nothing: a plan that comes later may lack it. A charge that is
    added and is there already takes its place.

    Raises ValidationError where a charge cannot have such keys.
    """
    kept = [_replaced(charge, layer.charges.get(charge.id)) for charge in charges if charge.id not in layer.remove]
    places = {charge.id: at for at, charge in enumerate(kept)}
    for charge in layer.add:
        if charge.id in places:
            kept[places[charge.id]] = charge
        else:
            kept.append(charge)
    return tuple(kept)


def _replaced(charge: Charge, keys: Mapping[str, Any] | None) -> Charge:
    if not keys:
        return charge
    before = charge.model_dump(exclude_defaults=True)
    if keys.keys() & charge.price_fields():
        before.pop("priced_in", None)  # a contract's prices are money
    return CHARGE.validate_python(before | dict(keys))
