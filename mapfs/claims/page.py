"""The results as one HTML page: no script, nothing loaded from elsewhere, light and dark."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Final

from mapfs.claims.claim import MARGIN, Claim, Figure, Finding, Result, Side, Verdict
from mapfs.claims.plot import STYLE, overview, panels
from mapfs.claims.samples import rounded

_PAGE_STYLE: Final = """
*{box-sizing:border-box}
:root{color-scheme:light dark;--good:#0a7a3d;--bad:#b3261e;--card:#f6f8fa}
@media (prefers-color-scheme:dark){:root{--good:#4cc38a;--bad:#ff8a80;--card:#1c2026}}
body{margin:0 auto;max-width:72rem;padding:1.5rem 1rem 4rem;background:var(--paper);
color:var(--ink);font:16px/1.55 system-ui,sans-serif}
h1{font-size:1.7rem;line-height:1.2;margin:.5rem 0}h2{font-size:1.25rem;margin:3rem 0 .5rem}
h3{font-size:1.1rem;margin:0 0 .25rem;line-height:1.35}
p{margin:.4rem 0;max-width:46rem}a{color:inherit}
.faint,dt,figcaption,summary,th{color:var(--faint)}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(19rem,1fr));gap:.1rem 1.5rem;
font-size:.9rem;margin:1rem 0}dl div{display:grid;grid-template-columns:8rem 1fr}
dd{margin:0;overflow-wrap:anywhere}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;width:100%}
th,td{text-align:left;padding:.4rem .9rem .4rem 0;border-bottom:1px solid var(--line);
vertical-align:top}
td.number,th.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.holds{color:var(--good)}.fails{color:var(--bad)}.unknown{color:var(--faint)}
.verdict{font-weight:600;white-space:nowrap}
section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;
padding:1rem 1.1rem;margin:1rem 0}
.side{font-size:.8rem;text-transform:uppercase;letter-spacing:.06em;padding-top:1rem}
ul{margin:.6rem 0;padding:0;list-style:none}li{margin:.35rem 0}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,18rem),1fr));
gap:1rem 1.5rem;margin:1rem 0}
figure{margin:0;max-width:22rem}figcaption{font-size:.85rem;margin-bottom:.3rem}
svg{width:100%;height:auto;display:block}
.overview{max-width:36rem}
details{margin:.6rem 0}summary{cursor:pointer;font-size:.9rem}
@media (max-width:40rem){.summary thead{display:none}.summary tr{display:block;
padding:.6rem 0;border-bottom:1px solid var(--line)}
.summary td,.summary th{display:block;border:0;padding:.1rem 0}
.summary td[data-of]::before{content:attr(data-of) ": ";color:var(--faint)}}
"""
_CLASSES: Final = {Verdict.HOLDS: "holds", Verdict.FAILS: "fails", Verdict.UNKNOWN: "unknown"}
_SIGNS: Final = {Verdict.HOLDS: "✓", Verdict.FAILS: "✗", Verdict.UNKNOWN: "–"}
_SIDES: Final = {Side.FOR: "For mmap", Side.AGAINST: "Against mmap"}


def as_html(results: Sequence[Result], facts: Mapping[str, str]) -> str:
    """The whole page. `facts` are of the machine and the run."""
    picture = overview(results)
    body = [
        "<h1>What is said for and against mmap, measured</h1>",
        f"<p>{_counted(results)}</p>",
        _facts(facts),
        "<h2>Does it hold here?</h2>",
        _summary(results),
        *(_overview(picture) if picture else ()),
        *(part for side in Side for part in _side(results, side)),
        _how(),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<link rel="icon" href="data:,">'
        "<title>What is said for and against mmap, measured</title>"
        f"<style>{STYLE}{_PAGE_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _counted(results: Sequence[Result]) -> str:
    counts = {verdict: sum(each.verdict is verdict for each in results) for verdict in Verdict}
    return (
        f"Of {len(results)} claims, {counts[Verdict.HOLDS]} hold on this machine for every kind of"
        f" file that could be measured and {counts[Verdict.FAILS]} for some or none;"
        f" {counts[Verdict.UNKNOWN]} could not be measured."
    )


def _facts(facts: Mapping[str, str]) -> str:
    rows = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in facts.items()
    )
    return f"<dl>{''.join(rows)}</dl>"


def _summary(results: Sequence[Result]) -> str:
    subjects = list(dict.fromkeys(each.subject for one in results for each in one.findings))
    head = "".join(f"<th>{escape(each)}</th>" for each in ("", *subjects))
    rows = "".join(_summary_rows(results, side, subjects) for side in Side)
    return (
        f'<div class="scroll"><table class="summary"><thead><tr>{head}</tr></thead>{rows}</table>'
        "</div>"
    )


def _summary_rows(results: Sequence[Result], side: Side, subjects: Sequence[str]) -> str:
    found = [result for result in results if result.claim.side is side]
    rows = "".join(f"<tr>{''.join(_summary_cells(each, subjects))}</tr>" for each in found)
    heading = f'<tr><th colspan="{len(subjects) + 1}" class="side">{_SIDES[side]}</th></tr>'
    return f"<tbody>{heading}{rows}</tbody>" if found else ""


def _summary_cells(result: Result, subjects: Sequence[str]) -> Iterator[str]:
    claim = result.claim
    yield f'<td><a href="#{claim.name}">{escape(claim.sentence)}</a></td>'
    found = {each.subject: each for each in result.findings}
    for subject in subjects:
        if subject in found:
            factor = found[subject].factor
            times = f' <span class="faint">{rounded(factor.median)}×</span>' if factor else ""
            verdict = _verdict(found[subject].verdict)
            yield f'<td data-of="{escape(subject)}">{verdict}{times}</td>'
        else:
            yield "<td></td>"


def _verdict(verdict: Verdict) -> str:
    return f'<span class="verdict {_CLASSES[verdict]}">{_SIGNS[verdict]} {verdict}</span>'


def _overview(picture: str) -> Iterator[str]:
    yield "<h2>How many times better, or worse</h2>"
    yield (
        "<p>Each mark is the median of the ratios within the repetitions, each line its interval."
        " What is compared stands with each claim.</p>"
    )
    yield f'<div class="overview">{picture}</div>'


def _side(results: Sequence[Result], side: Side) -> Iterator[str]:
    found = [result for result in results if result.claim.side is side]
    if found:
        yield f"<h2>{_SIDES[side]}</h2>"
        yield from map(_section, found)


def _section(result: Result) -> str:
    claim = result.claim
    pictures = "".join(
        f"<figure><figcaption>{escape(subject)}</figcaption>{picture}</figure>"
        for subject, picture in panels(result)
    )
    return (
        f'<section id="{claim.name}"><h3>{escape(claim.sentence)}</h3>'
        f"<p>{_verdict(result.verdict)}</p>"
        f"<ul>{''.join(map(_found, result.findings))}</ul>"
        f'<div class="panels">{pictures}</div>'
        f"{_explanation(claim)}{_figures(result.findings)}</section>"
    )


def _found(finding: Finding) -> str:
    sign = f'<span class="{_CLASSES[finding.verdict]}">{_SIGNS[finding.verdict]}</span>'
    return f"<li>{sign} <b>{escape(finding.subject)}</b>: {escape(finding.reason)}</li>"


def _explanation(claim: Claim) -> str:
    factor = f" Factor (×): {escape(claim.factor)}." if claim.factor else ""
    return f'<p class="faint">{escape(claim.method)} It {escape(claim.rule)}.{factor}</p>'


def _figures(findings: Sequence[Finding]) -> str:
    rows = "".join(
        _figure(finding.subject, figure) for finding in findings for figure in finding.figures
    )
    head = "".join(
        f"<th{style}>{name}</th>"
        for name, style in (
            ("file", ""),
            ("figure", ""),
            ("median", ' class="number"'),
            ("least", ' class="number"'),
            ("most", ' class="number"'),
            ("unit", ""),
            ("of", ' class="number"'),
        )
    )
    return (
        f'<details><summary>all figures</summary><div class="scroll"><table><thead><tr>{head}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div></details>"
    )


def _figure(subject: str, figure: Figure) -> str:
    spread = figure.spread
    numbers = "".join(
        f'<td class="number">{rounded(value)}</td>'
        for value in (spread.median, spread.least, spread.most)
    )
    return (
        f"<tr><td>{escape(subject)}</td><td>{escape(figure.label)}</td>{numbers}"
        f'<td>{escape(figure.unit)}</td><td class="number">{spread.count}</td></tr>'
    )


def _how() -> str:
    return (
        "<h2>How it is judged</h2><p>What is compared is done in turns, in an order drawn anew in"
        " each repetition. A claim about speed holds if the ratio is at least"
        f" {MARGIN:g} in its whole interval, which holds the median with a confidence of nine"
        " tenths; it does not hold if no value of the interval is; in between, the repetitions"
        " differ too much to tell. Page faults, calls and bytes are counted.</p>"
    )
