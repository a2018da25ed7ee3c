"""One benchmark's figures as a plot: bars of the medians from zero, whiskers from least to most.

The same figures give the same text. Colours follow the reader's light or dark scheme.
"""

from collections.abc import Iterator
from html import escape
from math import floor, log10

from bench.page import number
from bench.result import Comparison, Contestant, Result

WIDTH, LEFT, RIGHT = 810, 190, 180  # pixels; the names are left of the bars, the figures right
ROW, BAR, TOP, BOTTOM = 44, 22, 46, 52
STYLE = """\
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600 } .small { font-size: 11px; fill: #57606a } .end { text-anchor: end }
  .middle { text-anchor: middle } .ours { fill: #0a69da } .beside { fill: #afb8c1 }
  .grid { stroke: #d0d7de } .whisker { stroke: #24292f; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 }
    .ours { fill: #4493f8 } .beside { fill: #656c76 }
    .grid { stroke: #3d444d } .whisker { stroke: #e6edf3 }
  }"""


def render(title: str, result: Result) -> str:
    """Draw it as SVG."""
    height = TOP + ROW * len(result.contestants) + BOTTOM
    most = max(one.spread.max for one in result.contestants)
    step = _step(most)
    per_unit = (WIDTH - LEFT - RIGHT) / (step * -(-most // step))
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    rounds = len(result.contestants[0].rounds)
    unit = f"{result.unit}, median of {rounds} rounds; the line goes from the least to the most"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{STYLE}\n</style>",
        f'<text class="title" x="16" y="26">{escape(title)}</text>',
        *_axis(step, most, per_unit, height - BOTTOM),
        f'<text class="small" x="16" y="{height - 14}">{escape(unit)}</text>',
    ]
    for row, one in enumerate(result.contestants):
        parts += _bar(one, _ratio(result, one), TOP + ROW * row, per_unit)
    return "\n".join([*parts, "</svg>", ""])


def _axis(step: float, most: float, per_unit: float, bottom: int) -> Iterator[str]:
    for tick in range(int(-(-most // step)) + 1):
        x = _at(LEFT + tick * step * per_unit)
        label = f"{tick * step:,.10g}"
        yield f'<line class="grid" x1="{x}" y1="{TOP - 4}" x2="{x}" y2="{bottom}"/>'
        yield f'<text class="small middle" x="{x}" y="{bottom + 16}">{label}</text>'


def _bar(one: Contestant, ratio: str, top: int, per_unit: float) -> Iterator[str]:
    spread, kind = one.spread, "ours" if one.is_ours else "beside"
    middle, bar_top = top + ROW / 2, top + (ROW - BAR) / 2
    yield (f'<text class="end" x="{LEFT - 10}" y="{_at(middle + 4.5)}">{escape(one.name)}</text>')
    yield (
        f'<rect class="{kind}" x="{LEFT}" y="{_at(bar_top)}"'
        f' width="{_at(spread.median * per_unit)}" height="{BAR}" rx="2"/>'
    )
    ends = [_at(LEFT + figure * per_unit) for figure in (spread.min, spread.max)]
    yield (
        f'<line class="whisker" x1="{ends[0]}" y1="{_at(middle)}"'
        f' x2="{ends[1]}" y2="{_at(middle)}"/>'
    )
    x = WIDTH - RIGHT + 12
    yield f'<text x="{x}" y="{_at(middle + (0 if ratio else 4.5))}">{number(spread.median)}</text>'
    if ratio:
        yield f'<text class="small" x="{x}" y="{_at(middle + 14)}">{escape(ratio)}</text>'


def _ratio(result: Result, one: Contestant) -> str:
    """What a contestant is to ours, as the first comparison of the two says."""
    found: list[Comparison] = [c for c in result.comparisons if c.to == one.name]
    if not found:
        return ""
    return f"{found[0].of}: {number(result.compared(found[0]).median)} times"


def _step(most: float) -> float:
    """A round distance of ticks: four to eight of them up to the largest figure."""
    rough = most / 5
    power: float = 10.0 ** floor(log10(rough))
    return next(power * unit for unit in (1, 2, 5, 10) if power * unit >= rough)


def _at(pixels: float) -> str:
    return f"{pixels:.1f}".removesuffix(".0")
