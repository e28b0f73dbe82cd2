"""make bench: measures one part after the other, prints one table, and writes it as bench-results/TIME.json and TIME.svg.

By environment:

    PARTS             which: "throughput shapes modes latency scale" (all: about half an hour); what each takes by environment
                      is said in its file
    POSTGRES_VERSION  Debian's, 16 or 18 (Debian's)
    INSTALLATION      path of an installation to use instead of building one
"""

import datetime
import json
import os
import platform
import sys

from bench import chart, latency, modes, scale, shapes, throughput
from bench.environment import run, say
from harness import paths

PARTS = {"throughput": throughput, "shapes": shapes, "modes": modes, "latency": latency, "scale": scale}


def table(result):
    """Lines of text: parts, and what they measured."""
    entries = {name: list(PARTS[name].lines(result[name])) for name in PARTS if name in result}
    width = max((len(what) for part in entries.values() for what, _ in part), default=0)
    for name, part in entries.items():
        yield f"--- {name}"
        yield from (f"{what:{width}}  {value}" for what, value in part)
    yield f"--- {machine(result)}"


def machine(result):
    servers = next(result[name]["servers"] for name in PARTS if name in result)
    return f"{result['at']}: {result['cpus']} CPUs with the broker, {result['machine']}; " + ", ".join(
        f"{name} {value}" for name, value in servers.items())


def picture(result):
    """What has a ratio, in SVG; None: nothing has."""
    bars = [bar for name in PARTS if name in result and hasattr(PARTS[name], "bars") for bar in PARTS[name].bars(result[name])]
    if not bars:
        return None
    return chart.bar_chart("rows/s, of those of COPY, or of plain SQL with a COPY of its input", [("COPY, plain SQL", 1), *bars],
                           f"{result['at']}: {result['cpus']} CPUs with the broker, {result['machine']}")


def main():
    names = (os.environ.get("PARTS") or " ".join(PARTS)).split()
    if unknown := set(names) - set(PARTS):
        sys.exit(f"PARTS may have {', '.join(PARTS)}; not {', '.join(sorted(unknown))}")
    result = {"at": datetime.datetime.now().isoformat(timespec="seconds"), "machine": platform.platform(), "cpus": os.cpu_count()}
    for name in names:
        say(f"--- {name}, load {os.getloadavg()[0]:.1f}")
        result[name] = run(PARTS[name].measure)
    say("\n" + "\n".join(table(result)))

    results = paths.SOURCE / "bench-results"
    results.mkdir(exist_ok=True)
    path = results / f"{result['at'].replace(':', '')}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    image = picture(result)
    if image:
        path.with_suffix(".svg").write_text(image)
    say(f"\nwritten to {path.relative_to(paths.SOURCE)}{' and .svg' if image else '; nothing in it has a ratio to draw'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
