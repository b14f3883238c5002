"""What cannot become an e-invoice is refused, with everything that stands in the way."""

from decimal import Decimal
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from invoicing.rendering.as_ubl import render_ubl
from invoicing.rendering.cii import render_cii
from invoicing.rendering.en16931 import NotExpressibleError, priced
from schemas.document import Document, Rate, TaxCategory
from tests.documents.samples import (
    BUYER,
    SAMPLES,
    SELLER,
    VAT_7,
    VAT_19,
    ZERO,
    document,
    exact,
    hostile,
    line,
    outside,
    reverse_charge,
    several_rates,
    sliced,
)  # fmt: skip


def with_tax(by: int) -> Document:
    """A document whose tax is so many cents off its group's."""
    changed = document([line(1, "a", 9999)]).model_dump()
    changed["taxes"][0]["tax_minor"] += by
    for name in ("tax_minor", "gross_minor", "due_minor"):
        changed["totals"][name] += by
    return Document.model_validate(changed)


def without(party: str, *names: str, **more: Any) -> dict[str, Any]:
    """A party that lacks something."""
    whole = SELLER if party == "seller" else BUYER
    return {party: whole.model_copy(update=dict.fromkeys(names) | more)}


CITY = (*VAT_19, Rate(name="City", percent=Decimal(1)))
TINY = (Rate(name="Levy", percent=Decimal("0.4")),)


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (document([line(1, "a", 1)], seller=None), "there is no seller; store one with `meterline seller apply FILE`"),
        (document([line(1, "a", 1)], **without("seller", "country", "vat_id")), "the seller has no country; the seller has neither a VAT id nor a tax number"),
        (document([line(1, "a", 1)], **without("buyer", "country")), "the buyer has no country"),
        (document([line(1, "a", 1)], **without("seller", vat_id="123")), "the seller's VAT id 123 does not begin with a country"),
        (document([line(1, "a", 1)], **without("seller", "registration", "vat_id", tax_number="1")), "the seller has no registration and no VAT id"),
        (outside().model_copy(update=without("seller", "registration")), "the seller has no registration"),
        (reverse_charge().model_copy(update=without("buyer", "vat_id")), "reverse charge asks for the buyer's VAT id or registration"),
        (with_tax(1), r"the tax of 19 % on 99\.99 is 19\.01, not 18\.9981 rounded once; .*\(rate_group\)"),
        (with_tax(-1), r"the tax of 19 % on 99\.99 is 18\.99, not 18\.9981 rounded once"),
        (document([line(1, "a", 100, rates=CITY)]), "a line has more than one rate; EN 16931 has one VAT a line"),
        (document([line(1, "a", 1, category=TaxCategory.OUTSIDE, rates=()), line(2, "b", 1)]), "what is not subject to VAT cannot stand beside what is"),
        (document([line(1, "a", 1, rates=(Rate(name="A", percent=Decimal(7)),)), line(2, "b", 1, rates=VAT_7)]), "two taxes have the same category and rate"),
        (document([line(1, "a", 1, rates=ZERO)]), "category S asks for a rate above zero"),
        (document([line(1, "a", 100, category=TaxCategory.EXEMPT)]), r"category E has a rate of 19 %; an exemption has no reason"),
        (document([line(1, "a", 100_00, rates=TINY), line(2, "b", 150_00, rates=TINY)]), r"a rate of 0\.4 % is rounded to zero by the rules"),
        (document([line(1, "a", 1000)], currency="KWD"), "KWD has 3 decimals; EN 16931 has at most two"),
        (document([line(1, "a", 1)], due_on=None, payment_terms=""), "there is neither a due date nor terms of payment"),
    ],
)  # fmt: skip
def test_what_cannot_be_expressed_is_refused(refused: Document, message: str) -> None:
    """UBL and Factur-X refuse the same, and say why."""
    for render in (render_ubl, render_cii):
        with pytest.raises(NotExpressibleError, match=f"INV-000042 cannot become an e-invoice: .*{message}"):
            render(refused)


def test_quantity_times_price_is_the_amount() -> None:
    """Where one price does not make the amount, one piece costs it; it is taken back where it is below zero."""
    cases = [
        (line(1, "one price", 617, quantity=exact("12345"), slices=sliced((None, "12345", "0.0005", "0"))), ("12345", "0.0005")),
        (line(1, "rounded", 1, quantity=exact("3"), slices=sliced((None, "3", "0.002", "0"))), ("3", "0.002")),
        (line(1, "flat", 1000, slices=sliced((None, "1", "0", "10"))), ("1", "10.00")),
        (line(1, "tiers", 150, quantity=exact(3), slices=sliced(("1", "1", "0.5", "0"), (None, "2", "0.5", "0"))), ("3", "0.5")),
        (line(1, "tiers", 200, quantity=exact(3), slices=sliced(("1", "1", "1", "0"), (None, "2", "0.5", "0"))), ("1", "2.00")),
        (line(1, "packages", 300, quantity=exact(38), slices=sliced((None, "4", "0.75", "0"))), ("1", "3.00")),
        (line(1, "below zero", -75), ("-1", "0.75")),
        (line(1, "nothing", 0, quantity=exact(0)), ("1", "0.00")),
    ]  # fmt: skip
    for each, (quantity, price) in cases:
        of = priced(each, 2)
        assert (f"{of.quantity:f}", f"{of.price:f}") == (quantity, price), each.description


def test_texts_of_others_stay_texts() -> None:
    """The XML parses, and every description comes out as it went in."""
    whole = hostile()
    for render in (render_ubl, render_cii):
        texts = {element.text for element in ET.fromstring(render(whole)).iter()}
        assert {each.description for each in whole.lines} | {whole.buyer.name, *whole.notes} <= texts


def test_no_element_is_empty() -> None:
    """EN 16931 forbids empty elements, but for the delivery that CII asks for."""
    for make in SAMPLES.values():
        for render in (render_ubl, render_cii):
            for element in ET.fromstring(render(make())).iter():
                empty = not (element.text or "").strip() and not len(element)
                assert not empty or element.tag.endswith("ApplicableHeaderTradeDelivery")


def test_a_graduated_line_tells_its_slices() -> None:
    """What the one price cannot say stands in the description."""
    assert "up to 1,000,000: 1,000,000 x 0.00125 + 100.00 flat = 1,350.00; 234,567.5 x 0.0009" in render_ubl(
        several_rates()
    )
