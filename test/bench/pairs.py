"""COPY and a stream in turn, over the same rows: what every other figure is compared with."""

import statistics

from bench import contenders


def summary(runs):
    """Medians of what the runs measured."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def measure(db, path, count, pairs, say, shape=contenders.ORDERS):
    """Returns medians, all runs, the pairs' own ratios, and the median of these."""
    copies, streams, ratios = [], [], []
    for number in range(1, pairs + 1):
        copies.append(contenders.copy(db, path, count, shape))
        streams.append(contenders.stream(db, count, shape))
        ratios.append(streams[-1]["rows_per_second"] / copies[-1]["rows_per_second"])
        say(f"pair {number}: COPY {copies[-1]['rows_per_second']:,.0f} rows/s, "
            f"stream {streams[-1]['rows_per_second']:,.0f} rows/s, ratio {ratios[-1]:.2f}")
        require_same_table(db, "by_stream")
    return {"copy": summary(copies), "stream": summary(streams), "copy_runs": copies, "stream_runs": streams,
            "ratios": ratios, "ratio": statistics.median(ratios)}


def ratio_text(result):
    """The ratio of what measure() returned, and between what those of the pairs lie."""
    return f"{result['ratio']:.2f} ({min(result['ratios']):.2f} to {max(result['ratios']):.2f})"


def require_same_table(db, table):
    """A contender that leaves something out is not fast."""
    if contenders.checksum(db, "by_copy") != contenders.checksum(db, table):
        raise RuntimeError(f"table {table} differs from COPY's")
