"""The report of a comparison as one HTML file: no script, no style or picture from elsewhere, every text escaped.

Same differences, same bytes.
"""

from __future__ import annotations

import html
from collections.abc import Iterator

from shiplap.audit.differences import Change, Finding, Section

_STYLE = """\
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; background: #fff; }
h1 { font-size: 1.3em; overflow-wrap: anywhere; }
details { border-left: 3px solid #ccd; margin: .6em 0; padding-left: .8em; }
summary { cursor: pointer; font-weight: 600; }
table { border-collapse: collapse; margin: .4em 0; }
td, th { border: 1px solid #ccd; padding: .15em .5em; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
pre { background: #f5f5f8; padding: .5em; overflow-x: auto; margin: .3em 0; }
.equal { color: #285; } .differs { color: #a22; } .a { background: #fee; } .b { background: #efe; } code { overflow-wrap: anywhere; }
"""
# Nothing may be loaded and nothing may run, whatever slipped through.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def html_report(a: str, b: str, section: Section) -> str:
    """The whole file. ``a``, ``b``: the two things as they were named."""
    return "\n".join(_document(a, b, section)) + "\n"


def _document(a: str, b: str, section: Section) -> Iterator[str]:
    yield "<!DOCTYPE html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield f"<title>shiplap diff</title><style>\n{_STYLE}</style></head><body>"
    yield f"<h1>A: {_text(a)}<br>B: {_text(b)}</h1>"
    verdict = "differs" if section.differs else "equal"
    yield f'<p class="{verdict}">{_text(section.kind)}: {"they differ" if section.differs else "they are equal"}</p>'
    yield from _section(section)
    yield "</body></html>"


def _section(section: Section) -> Iterator[str]:
    if section.causes:
        yield "<ul>" + "".join(f"<li><strong>{_text(cause)}</strong></li>" for cause in section.causes) + "</ul>"
    if section.remarks:
        yield "<ul>" + "".join(f"<li>{_text(remark)}</li>" for remark in section.remarks) + "</ul>"
    if section.total:
        yield "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in section.summary()) + "</ul>"
        yield "<table><tr><th>where</th><th>field</th><th>A</th><th>B</th></tr>"
        for finding in section.findings:
            yield from _finding(finding)
        yield "</table>"
        if section.total > len(section.findings):
            yield f"<p>and {section.total - len(section.findings)} more</p>"
    for below in section.sections:
        verdict = "differs" if below.differs else "equal"
        opened = " open" if below.differs else ""
        yield f'<details{opened}><summary>{_text(below.title)} <span class="{verdict}">{verdict}</span></summary>'
        yield from _section(below)
        yield "</details>"


def _finding(finding: Finding) -> Iterator[str]:
    where = f"<code>{_text(finding.where)}</code>"
    if finding.verdict != "differs":
        amount = f", {finding.entries} entries" if finding.entries > 1 else ""
        side = finding.verdict[-1].lower()
        yield f'<tr><td>{where}</td><td colspan="3" class="{side}">{_text(finding.verdict)} {_text(finding.kind)}{amount}</td></tr>'
    for number, change in enumerate(finding.changes):
        first = f'<td rowspan="{len(finding.changes)}">{where}</td>' if not number else ""
        yield f"<tr>{first}<td>{_text(change.field)}</td>{_values(change)}</tr>"
    if finding.detail:
        lines = "\n".join(_text(line) for line in finding.detail)
        yield f'<tr><td colspan="4"><pre>{lines}</pre></td></tr>'


def _values(change: Change) -> str:
    if change.a is None and change.b is None:
        return '<td class="a">differs</td><td class="b">differs</td>'
    return "".join(
        f'<td class="{side}">{"<em>none</em>" if value is None else _text(str(value))}</td>'
        for side, value in (("a", change.a), ("b", change.b))
    )


def _text(text: str) -> str:
    """Escaped for HTML; what does not print is shown as its escape."""
    return html.escape("".join(c if c.isprintable() or c in "\t\n" else repr(c)[1:-1] for c in text))
