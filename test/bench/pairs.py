"""COPY and a stream in turn, over the same rows: what every other figure is compared with."""

import statistics

from bench import contenders


def summary(runs):
    """Medians of what the runs measured."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0] if runs[0][key] is not None}


def measure(db, path, count, pairs, say, shape=contenders.ORDERS):
    """Returns medians, all runs, and the ratio: the median of the pairs' own."""
    copies, streams = [], []
    for number in range(1, pairs + 1):
        copies.append(contenders.copy(db, path, count, shape))
        streams.append(contenders.stream(db, count, shape))
        ratio = streams[-1]["rows_per_second"] / copies[-1]["rows_per_second"]
        say(f"pair {number}: COPY {copies[-1]['rows_per_second']:,.0f} rows/s, "
            f"stream {streams[-1]['rows_per_second']:,.0f} rows/s, ratio {ratio:.2f}")
        require_same_table(db, "by_stream")
    return {"copy": summary(copies), "stream": summary(streams), "copy_runs": copies, "stream_runs": streams,
            "ratio": statistics.median(stream["rows_per_second"] / copy["rows_per_second"]
                                       for copy, stream in zip(copies, streams))}


def ratio_text(result):
    """The ratio of what measure() returned, and between what those of the pairs lie."""
    ratios = sorted(stream["rows_per_second"] / copy["rows_per_second"]
                    for copy, stream in zip(result["copy_runs"], result["stream_runs"]))
    return f"{result['ratio']:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def require_same_table(db, table):
    """A contender that leaves something out is not fast."""
    if contenders.checksum(db, "by_copy") != contenders.checksum(db, table):
        raise RuntimeError(f"table {table} differs from COPY's")
