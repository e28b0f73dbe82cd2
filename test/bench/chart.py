"""The ratios of a run as a picture: horizontal bars in SVG, which needs no library."""

from xml.sax.saxutils import escape

BAR = 26          # height of a bar with the space below it
LABEL_WIDTH = 330
WIDTH = 900


def bar_chart(title, bars, footer):
    """bars: (label, value), the first of which is what others are compared with."""
    largest = max(value for _, value in bars)
    height = 60 + BAR * len(bars) + 30
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" '
             f'font-size="13"><rect width="100%" height="100%" fill="white"/>',
             f'<text x="10" y="28" font-size="16" font-weight="bold">{escape(title)}</text>']
    for number, (label, value) in enumerate(bars):
        top = 46 + BAR * number
        length = (WIDTH - LABEL_WIDTH - 70) * value / largest
        colour = "#9aa5b1" if number == 0 else "#2f6f9f"
        lines.append(f'<text x="{LABEL_WIDTH - 10}" y="{top + 14}" text-anchor="end">{escape(label)}</text>'
                     f'<rect x="{LABEL_WIDTH}" y="{top}" width="{length:.1f}" height="{BAR - 6}" fill="{colour}"/>'
                     f'<text x="{LABEL_WIDTH + length + 8:.1f}" y="{top + 14}">{value:.2f}</text>')
    lines.append(f'<text x="10" y="{height - 12}" font-size="11" fill="#555">{escape(footer)}</text></svg>')
    return "\n".join(lines) + "\n"
