"""The HTML page of one run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from operator import attrgetter

from fsd_inference.cost.model import Cost
from fsd_inference.digests import digest_text
from fsd_inference.markup import Markup, tag
from fsd_inference.rank_report import LayerReport, RankReport
from fsd_inference.report.charts import DRAWN_RANKS, bars, heat_map, timeline
from fsd_inference.report.figures import RunFigures
from fsd_inference.report.matrix import matrix
from fsd_inference.report.page import facts, legend, notes, page, table, tiles
from fsd_inference.report.pricing import Priced
from fsd_inference.run_report import RunReport
from fsd_inference.units import bytes_text, seconds_text, usd_text
from fsd_inference.usage import Usage

_TIMELINE = (
    ("start", "starting"),
    ("load", "loading inputs and first layer"),
    ("wait", "waiting for frames"),
    ("unpack", "unpacking"),
    ("compute", "computing"),
    ("pack", "packing"),
    ("store", "storing results"),
    ("send", "sending (line below)"),
)
_STACKED = ("compute", "unpack", "pack", "wait")


def run_title(report: RunReport) -> str:
    """Return the channel of a run, and its numbers of workers and samples."""
    size = f"{report.workers:,} {'worker' if report.workers == 1 else 'workers'}"
    if report.replicas > 1:
        size = f"{report.replicas:,} replicas"
    return f"{report.channel}, {size}, {report.samples:,} samples"


def run_page(figures: RunFigures, priced: Priced) -> str:
    """Return the page of a run as a complete HTML document."""
    report = figures.report
    title = run_title(report)
    return page(
        f"Run: {title}",
        _header(figures, title),
        _failure(figures),
        _stragglers(report),
        _earlier(report),
        _tiles(figures, priced),
        _timeline(figures),
        _layers(figures),
        _matrix(figures),
        _cost(figures, priced),
        _ranks(figures),
        _digests(figures.report),
        tag("footer", "FSD-Inference. report.json has the figures, trace.json opens in ui.perfetto.dev."),
    )


def _header(figures: RunFigures, title: str) -> Markup:
    report = figures.report
    when = f"{datetime.fromtimestamp(figures.start, UTC):%Y-%m-%d %H:%M:%S} UTC, " if figures.start else ""
    where = "local processes" if report.replicas == 1 else "threads of one process"
    if report.memory_mb:
        where = f"functions of {report.memory_mb:,} MB"
    about = (
        f"{when}{report.layers:,} layers, {report.connections:,} connections; {where}, kernel {report.simd}, "
        f"{report.attempts} {'attempt' if report.attempts == 1 else 'attempts'}"
    )
    if report.resumed_at:
        about += f", the last from layer {report.resumed_at:,} on"
    checkpoints = sum(rank.checkpoints for rank in report.ranks)
    if checkpoints:
        stored = sum(rank.checkpoint_bytes for rank in report.ranks)
        about += f"; {checkpoints:,} checkpoints of {bytes_text(stored)}"
    if report.rounding is not None:
        about += f"; what ranks sent was {report.rounding}"
    return tag(
        "header", tag("p", "FSD-Inference run", class_="eyebrow"), tag("h1", title), tag("p", about, class_="soft")
    )


def _failure(figures: RunFigures) -> Markup:
    error = figures.report.error
    if error is None:
        return Markup()
    rows = [(name, error[name]) for name in ("type", "rank", "layer", "operation") if error.get(name) is not None]
    rows.append(("retry", "may help" if error.get("retryable") else "does not help"))
    reported = f"{len(figures.ranks):,} of {figures.report.parts:,} {figures.part}s could still report."
    return tag(
        "section",
        tag("h2", "This run failed"),
        tag("p", error.get("message", "The report gives no reason.")),
        facts(rows),
        tag("p", reported, class_="soft"),
        class_="failed",
        role="alert",
    )


def _stragglers(report: RunReport) -> Markup:
    slow = report.stragglers
    if not slow:
        return Markup()
    return tag("section", tag("h2", "Slow ranks"), *(tag("p", f"{straggler}.".capitalize()) for straggler in slow))


def _earlier(report: RunReport) -> Markup:
    """Return why the attempts before the last ended, and how long their ranks ran, which is part of the cost."""
    if not report.earlier_errors:
        return Markup()
    reasons = [str(error.get("message", "the report gives no reason")) for error in report.earlier_errors]
    spent = seconds_text(report.earlier.workers_s)
    ran = f"{report.earlier.workers:,} of their ranks reported, and ran for {spent} in all, which the cost includes."
    paragraphs = [tag("p", f"{reason[:1].upper()}{reason[1:]}.") for reason in reasons]
    return tag("section", tag("h2", "Earlier attempts"), *paragraphs, tag("p", ran, class_="soft"))


def _tiles(figures: RunFigures, priced: Priced) -> Markup:
    report, usage = figures.report, figures.report.usage
    rows = [
        ("Wall time", seconds_text(report.wall_s), f"{report.samples_per_s:,.0f} samples/s" if report.wall_s else ""),
        ("Launch", seconds_text(report.launch_s), f"first to last {figures.part}{_cold(figures)}"),
        ("Compute", seconds_text(report.compute_s), f"slowest {figures.part}; {report.gedges_per_s:.2f} Gedge/s"),
        ("Waiting", seconds_text(figures.wait_s), f"mean {figures.part}"),
        ("Requests", f"{sum(usage.requests.values()):,}", f"{usage.retries:,} retries, {usage.misses:,} misses"),
        ("Sent", bytes_text(usage.wire_bytes), f"{usage.frames:,} frames"),
    ]
    if priced.metered is not None:
        predicted = priced.predicted
        more = f"prices of {priced.metered.date}" if predicted is None else f"predicted ${predicted.usd:.3g}"
        rows.append(("Cost", f"${priced.metered.usd:.3g}", more))
    return tiles(rows)


def _cold(figures: RunFigures) -> str:
    cold = [rank.init_s for rank in figures.ranks if rank.init_s]
    return f"; {len(cold):,} cold, init up to {seconds_text(max(cold))}" if cold else ""


def _timeline(figures: RunFigures) -> Markup:
    heading = tag("h2", "Timeline")
    if not any(rank.events for rank in figures.ranks):
        return tag("section", heading, tag("p", _without(figures, "its intervals"), class_="soft"))
    drawing, remarks = timeline(figures)
    left_out = [each for rank in figures.ranks for each in rank.events_left_out.values()]
    if left_out:
        count, seconds = sum(each.number for each in left_out), sum(each.seconds for each in left_out)
        remarks.append(
            f"The shortest {count:,} intervals and arrivals of all {figures.part}s were not reported individually "
            f"({seconds:.2f} s in total)."
        )
    part = figures.part
    about = f"The work of each {part}, with its concurrent sends below. Times are from each {part}'s own clock."
    return tag(
        "section",
        heading,
        tag("p", about, class_="soft"),
        legend(_TIMELINE),
        tag("div", drawing, class_="scroll"),
        notes(remarks),
    )


def _without(figures: RunFigures, what: str) -> str:
    """Return why a section of the page has no data; `what` names the missing figures."""
    if not figures.report.ranks:
        serial = figures.report.channel == "serial"
        return "A serial run has no ranks." if serial else "No rank could report."
    if figures.report.replicas > 1 and figures.report.memory_mb is None:
        return "Replicas that run as threads do not report layers."
    return f"No rank reported {what}: the run is of an older release, or failed too early."


def _layers(figures: RunFigures) -> Markup:
    layers, heading = figures.layers, tag("h2", "Layers")
    if not layers:
        return tag("section", heading, tag("p", _without(figures, "its layers"), class_="soft"))
    sent, remarks = bars(layers, [("one", lambda each: each.bytes)], bytes_text, "Bytes sent after each layer")
    asked, more = bars(layers, [("one", lambda each: each.requests)], "{:,.10g}".format, "Requests during each layer")
    parts = [(name, attrgetter(f"{name}_s")) for name in _STACKED]
    spent, most = bars(layers, parts, _milliseconds, "Time of each layer, mean rank")
    names = ["bytes", "frames", "requests", *(f"{name}, ms" for name in (*_STACKED, "send"))]
    return tag(
        "section",
        heading,
        tag("h3", "Bytes sent after each layer, all ranks"),
        tag("div", sent, class_="scroll"),
        tag("h3", "Requests during each layer, all ranks"),
        tag("div", asked, class_="scroll"),
        tag("h3", "Time of each layer, mean rank"),
        legend((name, text) for name, text in _TIMELINE if name in _STACKED),
        tag("div", spent, class_="scroll"),
        notes([*remarks, *more, *most]),
        tag(
            "details",
            tag("summary", "The same as a table"),
            table(
                "By layer: all ranks' bytes, frames and requests, and the mean rank's time",
                ["layer", *names],
                [_layer_row(index, each) for index, each in enumerate(layers)],
            ),
        ),
    )


def _layer_row(index: int, layer: LayerReport) -> list[object]:
    times = (f"{getattr(layer, f'{name}_s') * 1e3:,.2f}" for name in (*_STACKED, "send"))
    return [index, f"{layer.bytes:,}", f"{layer.frames:,}", f"{layer.requests:,}", *times]


def _usd(usd: float) -> str:
    return usd_text(usd) if usd else "0"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.4g} ms"


def _matrix(figures: RunFigures) -> Markup:
    if figures.report.replicas > 1:
        return Markup()  # replicas do not communicate
    heading = tag("h2", "Bytes sent between ranks")
    found = matrix(figures, DRAWN_RANKS)
    if found is None or not found.total:
        silent = "Nothing was sent." if found else _without(figures, "to which ranks it sent")
        return tag("section", heading, tag("p", silent, class_="soft"))
    source, target = found.largest_pair()
    sent = [sum(row) for row in found.cells]
    received = [sum(column) for column in zip(*found.cells, strict=True)]
    most, least = max(sent), min(sent)
    rows = [
        ("delivered in total", bytes_text(found.total)),
        ("sent to the service", bytes_text(figures.report.usage.wire_bytes)),
        ("largest pair", f"{found.name(source)} to {found.name(target)}, {bytes_text(found.largest)}"),
        ("largest sender", f"{found.name(sent.index(most))}, {bytes_text(most)}"),
        ("smallest sender", f"{found.name(sent.index(least))}, {bytes_text(least)}"),
        ("largest receiver", f"{found.name(received.index(max(received)))}, {bytes_text(max(received))}"),
    ]
    remarks = ["A frame for several ranks is sent to the service once, but counts here for each of them."]
    if found.block > 1:
        remarks.append(f"Rows and columns are sums of {found.block} ranks each.")
    missing = sum(rank.sent_to is None for rank in figures.ranks) + figures.report.parts - len(figures.ranks)
    if missing:
        remarks.append(f"{missing:,} ranks did not report to which ranks they sent.")
    side = tag("div", facts(rows), notes(remarks))
    return tag("section", heading, tag("div", heat_map(found), side, class_="columns"))


def _cost(figures: RunFigures, priced: Priced) -> Markup:
    metered = priced.metered
    heading = tag("h2", "Cost" if figures.report.predicted is None else "Cost and counts: predicted against metered")
    remarks = notes(priced.notes)
    counts = _counts(figures)
    if metered is None:
        return tag("section", heading, remarks, counts)
    services = _services(metered, priced.predicted)
    lines = table(
        f"All items; USD, prices of {metered.region}, {metered.date}",
        ["item", "quantity", "unit", "USD"],
        [
            (f"{line.service}: {line.item}", f"{line.quantity:,.6g}", line.unit, _usd(line.usd))
            for line in metered.lines
        ],
        ["run", "", "", _usd(metered.usd)],
    )
    whole = tag("details", tag("summary", "All items of the bill"), lines)
    return tag("section", heading, tag("div", services, counts, class_="columns"), remarks, whole)


def _services(metered: Cost, predicted: Cost | None) -> Markup:
    caption = f"USD by service, prices of {metered.region}, {metered.date}"
    found = metered.by_service()
    sample = ("per sample", metered.usd_per_sample)
    if predicted is None:
        rows = [(name, _usd(usd)) for name, usd in (*found.items(), sample)]
        return table(caption, ["service", "metered"], rows, ["run", _usd(metered.usd)])
    before = {**predicted.by_service(), "per sample": predicted.usd_per_sample}
    rows3 = [(name, _usd(before[name]), _usd(usd), _error(before[name], usd)) for name, usd in (*found.items(), sample)]
    foot = ["run", _usd(predicted.usd), _usd(metered.usd), _error(predicted.usd, metered.usd)]
    return table(caption, ["service", "predicted", "metered", "error"], rows3, foot)


def _counts(figures: RunFigures) -> Markup:
    report = figures.report
    counted = _counted(report.usage)
    if report.predicted is None:
        rows = [(name, f"{value:,}") for name, value in counted.items()]
        return table("Requests by kind, and bytes", ["count", "metered"], rows) if rows else Markup()
    before = _counted(report.predicted.usage)
    lines = [
        (
            name,
            f"{before.get(name, 0):,.0f}",
            f"{counted.get(name, 0):,}",
            _error(before.get(name, 0), counted.get(name, 0)),
        )
        for name in dict.fromkeys([*counted, *before])
    ]
    if report.predicted.wall_s is not None:
        wall = report.predicted.wall_s
        lines.append(("wall time", seconds_text(wall), seconds_text(report.wall_s), _error(wall, report.wall_s)))
    return table("Requests by kind, bytes, and time", ["count", "predicted", "metered", "error"], lines)


def _counted(usage: Usage) -> Mapping[str, int]:
    requests = {kind: count for kind, count in sorted(usage.requests.items()) if count}
    return {
        **requests,
        "all requests": sum(requests.values()),
        "frame bytes": usage.wire_bytes,
        "body bytes": usage.body_bytes,
    }


def _error(predicted: float, metered: float) -> str:
    """Return the relative error of a prediction as text."""
    return f"{predicted / metered - 1:+.1%}" if metered else "" if not predicted else "none metered"


def _ranks(figures: RunFigures) -> Markup:
    if not figures.ranks:
        return Markup()
    shown = figures.sampled(DRAWN_RANKS)
    caption = f"Seconds, requests and bytes of each {figures.part}"
    if len(shown) < len(figures.ranks):
        caption += f": {len(shown)} of {len(figures.ranks):,}, evenly spaced"
    names = [
        figures.part,
        "init",
        "lifetime",
        "load",
        "compute",
        "unpack",
        "pack",
        "wait",
        "send",
        "requests",
        "sent",
        "peak memory",
    ]
    return tag(
        "section",
        tag("h2", f"{figures.part.capitalize()}s"),
        table(caption, names, [_rank_row(rank) for rank in shown]),
        notes(f"{figures.part.capitalize()} {rank.rank}: {rank.failure}" for rank in shown if rank.failure),
    )


def _rank_row(rank: RankReport) -> list[object]:
    lived = "" if rank.lived_s is None else f"{rank.lived_s:.2f}"
    times = (
        f"{seconds:.3f}"
        for seconds in (rank.load_s, rank.compute_s, rank.unpack_s, rank.pack_s, rank.wait_s, rank.send_s)
    )
    sizes = (bytes_text(rank.usage.wire_bytes), bytes_text(rank.peak_rss_bytes))
    init = f"{rank.init_s:.3f}" if rank.init_s else ""
    return [rank.rank, init, lived, *times, f"{rank.usage.requests.total():,}", *sizes]


def _digests(report: RunReport) -> Markup:
    digests = report.digests
    if digests is None:
        return Markup()
    rows = [("network", digests.network), ("batch", digest_text(digests.batch))]
    return tag(
        "section",
        tag("h2", "Digests"),
        tag(
            "p",
            "They are the same for every channel, number of workers and partition; fsd diff compares them.",
            class_="soft",
        ),
        facts(rows if digests.plan is None else [*rows, ("plan", digests.plan)]),
        tag(
            "details",
            tag("summary", "The digest of each layer"),
            table(
                "Digests of the outputs of the layers",
                ["layer", "digest"],
                list(enumerate(map(digest_text, digests.layers))),
            ),
        ),
    )
