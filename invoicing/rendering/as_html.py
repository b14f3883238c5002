"""A document as one page of HTML that needs nothing else. Core.

Owns that the page has no markup but ours: every text goes through `Markup.format`, which escapes it, and stands in an
element of its own direction of writing. No script, no address of anything elsewhere; a policy in the page says so.
"""

from collections.abc import Iterable
from decimal import Decimal

from markupsafe import Markup

from invoicing.rendering.wording import Wording, wording
from schemas.document import Document, Line
from schemas.party import Party

_PAGE = Markup("""<!DOCTYPE html>
<html lang="{language}" dir="{direction}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; margin: 0 0 1rem; }}
.parties {{ display: flex; flex-wrap: wrap; gap: 2rem; margin-bottom: 1.5rem; }}
.parties section {{ flex: 1 1 15rem; }}
h2 {{ font-size: .85rem; color: #555; margin: 0 0 .25rem; }}
address {{ font-style: normal; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; }}
dt {{ color: #555; }}
dd {{ margin: 0; }}
table {{ width: 100%; border-collapse: collapse; }}
caption {{ position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }}
th, td {{ padding: .4rem .5rem; vertical-align: top; text-align: start; overflow-wrap: anywhere; }}
thead th {{ border-bottom: 2px solid #1a1a1a; }}
tbody tr {{ border-bottom: 1px solid #ddd; break-inside: avoid; }}
.number {{ text-align: end; white-space: nowrap; font-variant-numeric: tabular-nums; overflow-wrap: normal; }}
.how {{ list-style: none; margin: .2rem 0 0; padding: 0; font-size: .85rem; color: #555; }}
tfoot th {{ text-align: end; font-weight: normal; }}
tfoot .sum > * {{ font-weight: bold; border-top: 2px solid #1a1a1a; }}
footer {{ margin-top: 1.5rem; color: #333; }}
@page {{ size: A4; margin: 18mm; }}
@media print {{ body {{ margin: 0; padding: 0; max-width: none; font-size: 10pt; }}
  thead {{ display: table-header-group; }} }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<div class="parties">
{parties}
</div>
<table>
<caption>{title}</caption>
<thead><tr>{heads}</tr></thead>
<tbody>
{lines}
</tbody>
<tfoot>
{totals}
</tfoot>
</table>
</main>
<footer>
{foot}
</footer>
</body>
</html>
""")
_ROW, _BREAK, _NOTHING = Markup("\n"), Markup("<br>"), Markup("")


def render_html(document: Document, locale: str) -> str:
    """The document's page, in the words and numbers of a locale such as `de_DE`."""
    words = wording(document, locale)
    heads = [("line", "number"), ("description", ""), ("quantity", "number"), ("price", "number"), ("tax", "number")]
    cells = [_head(words[name], css) for name, css in heads]
    cells.append(_head(f"{words['amount']} {document.currency}", "number"))
    return str(
        _PAGE.format(
            language=words.language,
            direction="rtl" if words.locale.character_order == "right-to-left" else "ltr",
            title=f"{words[document.kind]} {document.number}",
            parties=_joined([*_parties(document, words), _facts(document, words)]),
            heads=_joined(cells, _NOTHING),
            lines=_joined(_rows(document, words)),
            totals=_joined(_totals(document, words)),
            foot=_joined(_foot(document)),
        )
    )


def _joined(parts: Iterable[Markup], between: Markup = _ROW) -> Markup:
    return between.join(parts)


def _head(text: str, css: str) -> Markup:
    return Markup('<th scope="col" class="{}">{}</th>').format(css, text)


def _parties(document: Document, words: Wording) -> list[Markup]:
    parties = [("seller", document.seller), ("buyer", document.buyer)]
    return [
        Markup("<section><h2>{}</h2><address>{}</address></section>").format(
            words[role], _joined((Markup("<bdi>{}</bdi>").format(row) for row in address(party, words)), _BREAK)
        )
        for role, party in parties
        if party
    ]


def address(party: Party, words: Wording) -> list[str]:
    """A party as on a letter: name, address, numbers."""
    town = " ".join(part for part in (party.postal_code, party.city) if part)
    country = party.country and words.country(party.country)
    rows = [party.name, party.street, party.street_more, town, party.region, country]
    numbers = [("vat_id", party.vat_id), ("tax_number", party.tax_number), ("registration", party.registration)]
    named = [f"{words[name]} {number}" for name, number in numbers if number]
    return [row for row in rows if row] + named + ([party.email] if party.email else [])


def facts(document: Document, words: Wording) -> list[tuple[str, str]]:
    """What stands beside the parties: names and values."""
    period = f"{words.day(document.period.first)} – {words.day(document.period.last)}"  # noqa: RUF001  a range
    rows = [("customer", document.customer), ("issued", words.day(document.issued_on))]
    if document.due_on:
        rows.append(("due_on", words.day(document.due_on)))
    rows.append(("period", period))
    if document.credits:
        rows.append(("credits", ", ".join(reference.number for reference in document.credits)))
    return [(words[name], value) for name, value in rows]


def _facts(document: Document, words: Wording) -> Markup:
    rows = (Markup("<dt>{}</dt><dd><bdi>{}</bdi></dd>").format(*row) for row in facts(document, words))
    return Markup("<section><dl>{}</dl></section>").format(_joined(rows, _NOTHING))


def _rows(document: Document, words: Wording) -> Iterable[Markup]:
    group = ""
    for line in document.lines:
        if line.group != group and line.group:
            yield Markup('<tr><th scope="rowgroup" colspan="6"><bdi>{}</bdi></th></tr>').format(line.group)
        group = line.group
        how = _joined((Markup("<li>{}</li>").format(row) for row in explained(line, words)), _NOTHING)
        listed = Markup('<ul class="how" aria-label="{}">{}</ul>').format(words["explanation"], how) if how else ""
        quantity, price, taxed, amount = cells(line, words)
        yield Markup(
            '<tr><td class="number">{}</td><th scope="row"><bdi>{}</bdi>{}</th><td class="number"><bdi>{}</bdi></td>'
            '<td class="number">{}</td><td class="number">{}</td><td class="number">{}</td></tr>'
        ).format(line.position, line.description, listed, quantity, price, taxed, amount)


def cells(line: Line, words: Wording) -> tuple[str, str, str, str]:
    """A line's quantity, unit price (where there is one), tax and amount."""
    quantity = words.number(line.quantity, line.decimals_min) + (f" {line.unit}" if line.unit else "")
    price = one_price(line)
    taxed = " + ".join(words.percent(rate.percent) for rate in line.rates) or line.category.value
    return quantity, "" if price is None else words.price(price), taxed, words.amount(line.net_minor)


def one_price(line: Line) -> Decimal | None:
    """The unit price of a line that has one: a single slice for all of the quantity, without a flat amount."""
    if len(line.slices) != 1 or line.adjusted or line.slices[0].flat or line.slices[0].quantity != line.quantity:
        return None
    return line.slices[0].unit_price


def explained(line: Line, words: Wording) -> list[str]:
    """The rows that explain a line: its slices, and of an adjustment what it is the difference of."""
    rows = [] if one_price(line) is not None else [words.slice(rated) for rated in line.slices]
    if line.adjusted:
        rows += [
            f"{words[word]}: {words.number(state.quantity)} = {words.amount(state.net_minor)}"
            for word, state in (("rated_now", line.adjusted.after), ("billed_before", line.adjusted.before))
        ]
    return rows


def sums(document: Document, words: Wording) -> list[tuple[str, str, bool]]:
    """The sums under the lines: name, amount, and whether it is one that counts."""
    totals = document.totals
    rows = []
    if document.allowances:
        rows.append((words["lines_sum"], words.money(totals.lines_minor), False))
        rows += [(each.reason, words.money(-each.amount_minor), False) for each in document.allowances]
    rows.append((words["net"], words.money(totals.net_minor), False))
    for group in document.taxes:
        if group.rate:
            name = (
                f"{group.rate.name} {words.percent(group.rate.percent)} {words['on']} {words.money(group.base_minor)}"
            )
            rows.append((name, words.money(group.tax_minor), False))
    rows.append((words["gross"], words.money(totals.gross_minor), True))
    if totals.prepaid_minor:
        rows.append((words["prepaid"], words.money(-totals.prepaid_minor), False))
        rows.append((words["due"], words.money(totals.due_minor), True))
    return rows


def _totals(document: Document, words: Wording) -> Iterable[Markup]:
    for name, amount, counts in sums(document, words):
        yield Markup(
            '<tr class="{}"><th scope="row" colspan="5"><bdi>{}</bdi></th><td class="number">{}</td></tr>'
        ).format("sum" if counts else "", name, amount)


def footnotes(document: Document) -> list[str]:
    """What stands under everything: why there is no tax, how to pay, notes."""
    reasons = [group.reason for group in document.taxes if group.reason]
    return [*reasons, *([document.payment_terms] if document.payment_terms else []), *document.notes]


def _foot(document: Document) -> list[Markup]:
    return [Markup("<p><bdi>{}</bdi></p>").format(row) for row in footnotes(document)]
