"""Turns the rows of a side-by-side run into two Markdown tables: ratios to nginx, and absolute figures."""

from statistics import median

GOALS = {"cpu_64": 1.35, "memory_mib": 40, "cold_start_ms": 100}


def at(row, path):
    for key in path.split("."):
        row = row.get(key) if isinstance(row, dict) else None
    return row


def cpu_us(stage):
    return lambda row: 1e6 * row[stage]["cpu_s"] / row[stage]["calls"] if at(row, f"{stage}.calls") else None


def rate(stage):
    return lambda row: row[stage]["calls"] / row[stage]["seconds"] if at(row, stage) else None


def plain(path):
    return lambda row: at(row, path)


class Figures:
    def __init__(self, rows):
        self.by = {(row["name"], row["round"]): row for row in rows}
        self.rounds = sorted({row["round"] for row in rows})

    def pairs(self, name, base):
        rows = [(self.by.get((name, n)), self.by.get((base, n))) for n in self.rounds]
        return [(a, b) for a, b in rows if a and b]

    def compare(self, name, base, stage, figure, combine):
        """Median over rounds. Left out are disturbed runs, and pairs of runs between which the cores came closer or
        went apart; where there are no others, they stand, and the figure is marked with a ~."""
        good, poor = [], []
        for row, other in self.pairs(name, base):
            a, b = figure(row), figure(other)
            if a is None or b is None:
                continue
            stages = [r[stage] for r in (row, other) if stage in r]
            bounces = [ns for s in stages for ns in s["bounce_ns"]]
            moved = bool(bounces) and max(bounces) > 1.5 * min(bounces)
            (poor if moved or any(s["disturbed"] for s in stages) else good).append(combine(a, b))
        values = good or poor
        return (median(values) if values else None), ("" if good else "~")

    def absolute(self, name, stage, figure):
        return self.compare(name, name, stage, figure, lambda a, _: a)


def cell(value, mark, digits):
    return "–" if value is None else f"{mark}{value:,.{digits}f}"


def table(heading, names, lines):
    """lines: (label, digits, function of a name -> (value, mark))"""
    out = [f"| {heading} | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for label, digits, figure in lines:
        cells = [cell(*figure(name), digits) for name in names]
        if any(c != "–" for c in cells):
            out.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(out)


def render(rows, starts, names, levels):
    figures = Figures(rows)
    stages = [(f"c{level}", f"{level} connection{'s' if level > 1 else ''}") for level in levels]
    slow = ("slow", "64 connections, 20 ms provider")
    top = levels[-1]

    def ratio(stage, figure):
        return lambda name: figures.compare(name, "nginx", stage, figure, lambda a, b: a / b if b else None)

    def absolute(stage, figure):
        return lambda name: figures.absolute(name, stage, figure)

    def added(stage, path):
        return lambda name: figures.compare(name, "direct", stage, plain(path), lambda a, b: a - b)

    ratios = [(f"CPU per call, {label}", 2, ratio(s, cpu_us(s))) for s, label in [*stages, slow]]
    ratios += [(f"calls per second, {label}", 2, ratio(s, rate(s))) for s, label in stages]
    ratios += [(f"p99, {label}", 2, ratio(s, plain(f"{s}.p99_us"))) for s, label in stages]
    ratios += [
        (f"peak memory, {top} connections", 2, ratio(None, plain("peak_mib"))),
        ("CPU, 50 event streams", 2, ratio("streams", plain("streams.cpu_s"))),
    ]
    values = [(f"CPU per call, µs, {label}", 1, absolute(s, cpu_us(s))) for s, label in [*stages, slow]]
    values += [(f"calls per second, {label}", 0, absolute(s, rate(s))) for s, label in [*stages, slow]]
    for s, label in stages:
        for p in ("p50", "p99"):
            values.append((f"{p}, µs, {label}", 0, absolute(s, plain(f"{s}.{p}_us"))))
    values += [(f"{p} added, µs, {slow[1]}", 0, added("slow", f"slow.{p}_us")) for p in ("p50", "p99")]
    values += [
        (f"peak memory, MiB, {top} connections", 1, absolute(None, plain("peak_mib"))),
        ("first event added, p50, µs, 50 streams", 0, added("streams", "streams.first_p50_us")),
        ("an event's way, p50, µs, 50 streams", 0, absolute("streams", plain("streams.transit_p50_us"))),
        ("an event's way, p99, µs, 50 streams", 0, absolute("streams", plain("streams.transit_p99_us"))),
    ]
    parts = [table("ratio to nginx", names, ratios)] if "nginx" in names else []
    variants = [name for name in names if name.startswith("penstock")]
    if "penstock+none" in variants and len(variants) > 1:
        parts.append(table("ratio to penstock+none", variants, price_of_memory(figures, stages, slow)))
    parts.append(table("absolute", names, values))
    parts.append(
        "Medians over rounds. Latencies at these levels are those of a closed loop: it is saturated."
    )

    runs = [row[s] for row in rows for s in row if isinstance(row[s], dict)]
    bounces = [ns for run in runs for ns in run["bounce_ns"]]
    parts.append(
        f"{len(figures.rounds)} rounds; {sum(run['failed'] for run in runs)} of {sum(run['calls'] for run in runs):,} "
        f"calls failed; {sum(run['disturbed'] for run in runs)} of {len(runs)} runs disturbed (others used up to "
        f"{max(run['others'] for run in runs):.0%} of a core; ~ marks a figure without an undisturbed run); "
        f"a cache line's round trip between the cores took {min(bounces):.0f} to {max(bounces):.0f} ns."
    )
    if "penstock" in names:
        parts.append(goals(figures, starts, top))
    return "\n\n".join(parts) + "\n"


def price_of_memory(figures, stages, slow):
    """What the ledger and a shared state cost, against a gateway that keeps nothing."""

    def ratio(stage, figure):
        return lambda name: figures.compare(
            name, "penstock+none", stage, figure, lambda a, b: a / b if b else None
        )

    def added(stage):
        p50 = plain(f"{stage}.p50_us")
        return lambda name: figures.compare(name, "penstock+none", stage, p50, lambda a, b: a - b)

    lines = [(f"CPU per call, {label}", 2, ratio(s, cpu_us(s))) for s, label in [*stages, slow]]
    lines += [(f"calls per second, {label}", 2, ratio(s, rate(s))) for s, label in stages]
    return lines + [(f"p50 added, µs, {label}", 0, added(s)) for s, label in [*stages, slow]]


def goals(figures, starts, top):
    cpu, mark = figures.compare("penstock", "nginx", "c64", cpu_us("c64"), lambda a, b: a / b)
    memory, _ = figures.absolute("penstock", None, plain("peak_mib"))
    lines = [
        ("CPU per call, 64 connections, ratio to nginx", cpu, mark, GOALS["cpu_64"], 2),
        (f"peak memory, {top} connections, MiB", memory, "", GOALS["memory_mib"], 1),
        (
            f"start to first answer, ms (worst {max(starts):.0f})",
            median(starts),
            "",
            GOALS["cold_start_ms"],
            1,
        ),
    ]
    out = ["| penstock | is | goal | met |", "| --- | ---: | ---: | --- |"]
    for label, value, mark, goal, digits in lines:
        met = "not measured" if value is None else "yes" if value <= goal else "no"
        if mark and value is not None:
            met = f"not known; {met} on a disturbed machine"
        out.append(f"| {label} | {cell(value, mark, digits)} | {goal} | {met} |")
    return "\n".join(out)
