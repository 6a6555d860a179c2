"""The SVG charts of a run's page, coloured by the page's style sheet."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence

from fsd_inference.markup import Markup, coordinate, join, tag
from fsd_inference.rank_report import Interval, LayerReport
from fsd_inference.report.axes import axis_end, figure, ticks
from fsd_inference.report.figures import RunFigures
from fsd_inference.report.matrix import Matrix
from fsd_inference.report.tracks import SENDS, activity, main_track
from fsd_inference.units import bytes_text

DRAWN_RANKS = 64
"""Maximum number of ranks that a drawing shows individually."""
_DRAWN_SLICES = 60_000
_DRAWN_BARS = 160
WIDTH = 1000.0
_LEFT = 56.0
_RIGHT = 8.0
_TOP = 18.0
_LEVELS = 10  # shades of the matrix
_WRITTEN_CELLS = 8  # maximum rows of a matrix whose cells are large enough to contain text

ORDER = ("start", "load", "wait", "unpack", "compute", "pack", "store", "send")
"""Activities in the order of legends."""


def timeline(figures: RunFigures) -> tuple[Markup, list[str]]:
    """Return the timeline of the ranks, and notes on what it leaves out."""
    ranks = figures.sampled(DRAWN_RANKS)
    notes, part = [], figures.part
    if len(ranks) < len(figures.ranks):
        notes.append(f"{len(ranks)} of {len(figures.ranks):,} {part}s are drawn, evenly spaced.")
    most = _DRAWN_SLICES // max(1, len(ranks))
    height = 22.0 if len(ranks) <= 16 else 14.0 if len(ranks) <= 32 else 10.0
    span = max(figures.end - figures.start, 1e-6)
    scale = (WIDTH - _LEFT - _RIGHT) / span
    rows, thinned = [], False
    for index, rank in enumerate(ranks):
        drawn = [*main_track(rank), *(each for each in rank.events if each.name in SENDS)]
        if len(drawn) > most:
            drawn, thinned = sorted(drawn, key=lambda each: each.start - each.end)[:most], True
        y = _TOP + index * height
        label = tag("text", rank.rank, class_="tick", x=_LEFT - 8, y=coordinate(y + height * 0.62), text_anchor="end")
        rows.append(join(label, *_row(drawn, rank.rank, y, height, figures.start, scale)))
    if thinned:
        notes.append(f"Only the longest {most:,} intervals of each {part} are drawn.")
    bottom = _TOP + len(ranks) * height
    whole = drawing(
        join(_time_axis(span, scale, bottom, part), *rows),
        bottom + 34,
        f"Timeline: the activities of each {part}",
        f"One row per {part}, from the start of {part} 0 to {span:.2f} seconds; the table of {part}s has the sums.",
        data_left=_LEFT,
        data_scale=f"{scale:.8g}",
        data_part=part,
        class_="timeline",
    )
    return whole, notes


def _row(events: Sequence[Interval], rank: int, y: float, height: float, origin: float, scale: float) -> list[Markup]:
    """Return a rank's row as one path of strokes per activity, the shortest form in SVG; sends lie below the work."""
    drawn: defaultdict[str, list[Interval]] = defaultdict(list)
    for each in events:
        drawn[activity(each)].append(each)
    paths = []
    for name in sorted(drawn, key=lambda each: ORDER.index(each) if each in ORDER else len(ORDER)):
        middle, stroke = (0.84, 0.16) if name in SENDS else (0.4, 0.64)
        steps = "".join(
            f"M{coordinate(_LEFT + (each.start - origin) * scale)} 0"
            f"h{coordinate(max(0.12, (each.end - each.start) * scale))}"
            for each in drawn[name]
        )
        layers = ",".join(f"{each.layer}/{each.micro_batch}" for each in drawn[name])
        paths.append(
            tag(
                "path",
                d=steps,
                class_=f"a-{name}" if name in ORDER else "a-other",
                transform=f"translate(0 {coordinate(y + middle * height)})",
                stroke_width=coordinate(stroke * height),
                data_name=name,
                data_rank=rank,
                data_layers=layers,
            )
        )
    return paths


def _time_axis(span: float, scale: float, bottom: float, part: str) -> Markup:
    marks = []
    for time in ticks(span, 10):
        x = coordinate(_LEFT + time * scale)
        marks.append(tag("line", class_="grid", x1=x, x2=x, y1=_TOP - 4, y2=coordinate(bottom)))
        marks.append(tag("text", figure(time), class_="tick", x=x, y=coordinate(bottom + 14), text_anchor="middle"))
    middle = coordinate(_LEFT + span * scale / 2)
    marks.append(
        tag(
            "text",
            f"seconds since {part} 0 was started",
            class_="label",
            x=middle,
            y=coordinate(bottom + 29),
            text_anchor="middle",
        )
    )
    marks.append(tag("text", part, class_="label", x=_LEFT - 8, y=10, text_anchor="end"))
    return join(*marks)


def bars(
    layers: Sequence[LayerReport],
    parts: Sequence[tuple[str, Callable[[LayerReport], float]]],
    write: Callable[[float], str],
    title: str,
    *,
    height: float = 130.0,
) -> tuple[Markup, list[str]]:
    """Return a chart of stacked bars over the layers, and notes on bars that are merged or cut off.

    Parameters
    ----------
    layers : sequence of LayerReport
        Figures of all layers.
    parts : sequence of (activity, value)
        Parts of each bar: the activity, which determines the colour, and the function that returns its value.
    write : callable
        Formats a value.
    title : str
        Title of the chart.
    height : float, optional
        Height of the bars' area in SVG units.
    """
    block = math.ceil(len(layers) / _DRAWN_BARS)
    groups = [layers[i : i + block] for i in range(0, len(layers), block)]
    # A bar of several layers shows their mean, so that the axis stays "per layer".
    values = [[sum(value(each) for each in group) / len(group) for _, value in parts] for group in groups]
    sums = [sum(stack) for stack in values]
    shown = axis_end(sums)
    scale = height / shown if shown else 0.0
    step = (WIDTH - _LEFT - _RIGHT) / max(1, len(groups))
    drawn = [_value_axis(shown, scale, height, write)]
    for index, stack in enumerate(values):
        first, last = index * block, min((index + 1) * block, len(layers)) - 1
        x, y = _LEFT + index * step, height + 8
        tip = f"layer {first}" if first == last else f"mean of layers {first} to {last}"
        for (name, _), value in zip(parts, stack, strict=True):
            tip += f"\n{name} {write(value)}" if len(parts) > 1 else f"\n{write(value)}"
        pieces, left = [], coordinate(x + step * 0.08)
        width = coordinate(max(0.5, step * 0.84))
        for (name, _), value in zip(parts, stack, strict=True):
            size = min(value * scale, y - 8)
            y -= size
            if coordinate(size) != "0":
                box = {"x": left, "y": coordinate(y), "width": width, "height": coordinate(size)}
                pieces.append(tag("rect", class_=f"b-{name}", **box))
        if sums[index] > shown:
            pieces.append(tag("rect", class_="cut", x=left, y=5, width=width, height=3))
        # The whole column shows the tooltip, however small the bar.
        hit = tag("rect", class_="hit", x=coordinate(x), y=8, width=coordinate(step), height=coordinate(height))
        drawn.append(tag("g", hit, *pieces, data_tip=tip))
    drawn.append(_layer_axis(len(layers), block, step, height))
    notes = [f"{title}: each bar is the mean of {block} layers."] if block > 1 else []
    over = sum(each > shown for each in sums)
    if over:
        cut = f"{over} {'bar is' if over == 1 else 'bars are'} cut off; the largest is {write(max(sums))}."
        notes.append(f"{title}: {cut}")
    sizes = f"Largest {write(max(sums))}" if sums else "No layers"
    return drawing(join(*drawn), height + 44, title, f"{sizes}; {len(layers):,} layers."), notes


def _value_axis(largest: float, scale: float, height: float, write: Callable[[float], str]) -> Markup:
    marks = []
    for value in ticks(largest, 4):
        y = height + 8 - value * scale
        marks.append(tag("line", class_="grid", x1=_LEFT, x2=WIDTH - _RIGHT, y1=coordinate(y), y2=coordinate(y)))
        text = tag("text", write(value), class_="tick", x=_LEFT - 6, y=coordinate(y + 3.5), text_anchor="end")
        marks.append(text)
    return join(*marks)


def _layer_axis(layers: int, block: int, step: float, height: float) -> Markup:
    marks = []
    for layer in ticks(layers - 1, 12):
        if layer == int(layer):
            x = coordinate(_LEFT + (layer // block + 0.5) * step)
            text = tag("text", figure(layer), class_="tick", x=x, y=coordinate(height + 22), text_anchor="middle")
            marks.append(text)
    middle = coordinate(_LEFT + (WIDTH - _LEFT - _RIGHT) / 2)
    marks.append(tag("text", "layer", class_="label", x=middle, y=coordinate(height + 37), text_anchor="middle"))
    return join(*marks)


def heat_map(found: Matrix) -> Markup:
    """Return the communication matrix as a heat map: more bytes are darker, or brighter in the dark theme."""
    size = len(found.cells)
    cell = min(56.0, 480.0 / size)
    left, top = 44.0, 30.0
    shades: defaultdict[int, list[str]] = defaultdict(list)
    edge = coordinate(cell * 0.94)
    for i, row in enumerate(found.cells):
        for j, value in enumerate(row):
            if value:
                shade = math.ceil(value / found.largest * _LEVELS)
                corner = f"M{coordinate(left + j * cell)} {coordinate(top + i * cell)}"
                shades[shade].append(f"{corner}h{edge}v{edge}h-{edge}z")
    paths = [
        tag("path", d="".join(steps), class_="heat", fill_opacity=f"{0.08 + 0.92 * shade / _LEVELS:.2f}")
        for shade, steps in sorted(shades.items())
    ]
    marks = _cell_texts(found, cell, left, top) if size <= _WRITTEN_CELLS else []
    for index in range(0, size, math.ceil(size / 16)):
        at = (index + 0.5) * cell
        number = index * found.block
        x, y = coordinate(left + at), coordinate(top + at + 3.5)
        marks.append(tag("text", number, class_="tick", x=x, y=top - 6, text_anchor="middle"))
        marks.append(tag("text", number, class_="tick", x=left - 6, y=y, text_anchor="end"))
    side = left + size * cell
    marks.append(
        tag("text", "to rank", class_="label", x=coordinate((left + side) / 2), y=top - 20, text_anchor="middle")
    )
    middle = coordinate(top + size * cell / 2)
    marks.append(
        tag("text", "from rank", class_="label", transform=f"translate(10 {middle}) rotate(-90)", text_anchor="middle")
    )
    frame = tag("rect", class_="frame", x=left, y=top, width=coordinate(size * cell), height=coordinate(size * cell))
    names = [found.name(index) for index in range(size)]
    texts = [[bytes_text(value) for value in row] for row in found.cells]
    data = {"left": left, "top": top, "cell": cell, "names": names, "cells": texts}
    return drawing(
        join(frame, *paths, *marks),
        top + size * cell + 6,
        "Communication matrix: bytes from each rank to each other",
        f"The largest cell is {bytes_text(found.largest)}.",
        width=side + 6,
        class_="matrix",
        style=f"max-width: {coordinate(side + 6)}px",
        data_matrix=json.dumps(data, separators=(",", ":")),
    )


def _cell_texts(found: Matrix, cell: float, left: float, top: float) -> list[Markup]:
    texts = []
    for i, row in enumerate(found.cells):
        for j, value in enumerate(row):
            if value:
                x, y = coordinate(left + (j + 0.47) * cell), coordinate(top + (i + 0.47) * cell + 3.5)
                dark = "on" if value > 0.5 * found.largest else "off"
                texts.append(tag("text", bytes_text(value), class_=f"cell {dark}", x=x, y=y, text_anchor="middle"))
    return texts


def drawing(
    inner: Markup, height: float, title: str, description: str, *, width: float = WIDTH, **more: object
) -> Markup:
    """Return a complete SVG drawing that scales with its container; `description` is for screen readers."""
    return tag(
        "svg",
        inner,
        viewBox=f"0 0 {coordinate(width)} {coordinate(height)}",
        role="img",
        aria_label=f"{title}. {description}",
        **more,
    )
