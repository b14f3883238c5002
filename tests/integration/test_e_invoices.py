"""E-invoices before validators that are none of ours: the official rules of EN 16931, and Mustang with veraPDF."""

from pathlib import Path

import pytest

from invoicing.rendering.app import typeface
from invoicing.rendering.as_facturx import render_facturx
from invoicing.rendering.as_ubl import render_ubl
from invoicing.rendering.cii import render_cii
from tests.documents.samples import SAMPLES, hostile, several_rates, yen
from tests.documents.validators import en16931_complaints, facturx_reports

BROKEN = [
    ("a wrong total", ">4402.14</cbc:TaxInclusiveAmount>", ">4402.15</cbc:TaxInclusiveAmount>", "BR-CO-15"),
    ("a wrong sum of lines", ">4022.25</cbc:LineExtensionAmount>", ">4022.26</cbc:LineExtensionAmount>", "BR-CO-10"),
    ("a wrong base", ">3675.00</cbc:TaxableAmount>", ">3676.00</cbc:TaxableAmount>", "BR-S-08"),
    ("no seller's country", "<cbc:IdentificationCode>DE</cbc:IdentificationCode>", "", "BR-09"),
]


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """All samples in both syntaxes, and some that we broke, through the validator in one go."""
    folder = tmp_path_factory.mktemp("e-invoices")
    for name, make in SAMPLES.items():
        (folder / f"{name}.ubl.xml").write_text(render_ubl(make()))
        (folder / f"{name}.cii.xml").write_text(render_cii(make()))
    whole = render_ubl(several_rates())
    for name, old, new, _ in BROKEN:
        assert old in whole, name
        (folder / f"{name}.xml").write_text(whole.replace(old, new, 1))
    return en16931_complaints(sorted(folder.glob("*.xml")))


@pytest.mark.parametrize("syntax", ["ubl", "cii"])
@pytest.mark.parametrize("sample", SAMPLES)
def test_a_document_is_valid(complaints: dict[str, list[str]], sample: str, syntax: str) -> None:
    """By the schema and by every rule of EN 16931: several rates, below zero, yen, zero, exempt, reverse charge ..."""
    assert complaints[f"{sample}.{syntax}.xml"] == []


@pytest.mark.parametrize(("name", "rule"), [(name, rule) for name, _, _, rule in BROKEN])
def test_the_validator_sees_what_is_wrong(complaints: dict[str, list[str]], name: str, rule: str) -> None:
    """So that its silence means something."""
    assert any(rule in complaint for complaint in complaints[f"{name}.xml"])


def test_a_factur_x_file_is_valid(tmp_path: Path) -> None:
    """It is PDF/A-3 to veraPDF, also with a font of another kind and with hostile texts, and its XML is valid."""
    files = {"rates.pdf": (several_rates, "de_DE"), "yen.pdf": (yen, "ja_JP"), "hostile.pdf": (hostile, "en_US")}
    for name, (make, locale) in files.items():
        (tmp_path / name).write_bytes(render_facturx(make(), locale, typeface()))
    (tmp_path / "cut.pdf").write_bytes(
        (tmp_path / "rates.pdf").read_bytes().replace(b"/AFRelationship /Alternative", b"/AFRelationshop /Alternative")
    )
    reports = facturx_reports([tmp_path / name for name in (*files, "cut.pdf")])
    for name in files:
        valid, report = reports[name]
        assert valid, report
        assert "isCompliant=true" in report
        assert "<profile>urn:cen.eu:en16931:2017</profile>" in report
    assert "isCompliant=false" in reports["cut.pdf"][1]
