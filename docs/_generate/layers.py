"""Layout of a graph in layers: a short version of the method of Sugiyama et al. (1981).

A long edge gets a point on each layer that it crosses. Items in a layer are sorted by the mean position of
their neighbors above and below, alternately; the order with the fewest crossings is kept. Then each item
moves as close to the mean of its neighbors as the other items of its layer allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations, pairwise
from statistics import mean

Graph = Mapping[str, set[str]]
Item = str | tuple[str, str, int]
"""A node, or the point of an edge (from, to) on a layer."""
BOX = (98.0, 28.0)
LAYER, GAP, LANE = 56.0, 14.0, 12.0
ROUNDS = 60


@dataclass(frozen=True)
class Picture:
    """A layout: the middle of the upper side of each box, and the paths of its edges."""

    width: float
    height: float
    box: tuple[float, float]
    boxes: dict[str, tuple[float, float]]
    edges: dict[str, list[str]]


def reduced(graph: Graph) -> dict[str, set[str]]:
    """Return the transitive reduction of an acyclic graph."""

    def reached(name: str) -> set[str]:
        return graph[name].union(*(reached(other) for other in graph[name]))

    below = {name: reached(name) for name in graph}
    return {
        name: {other for other in others if not any(other in below[each] for each in others)}
        for name, others in graph.items()
    }


def arranged(graph: Graph, rows: Sequence[Sequence[str]]) -> Picture:
    """Return the layout of boxes and edges, with the rows from top to bottom."""
    level = {name: index for index, row in enumerate(rows) for name in row}
    layers: list[list[Item]] = [list(row) for row in rows]
    links: list[tuple[Item, Item]] = []
    for name, others in graph.items():
        for other in sorted(others):
            points: list[Item] = [(name, other, index) for index in range(level[name] + 1, level[other])]
            for point, index in zip(points, range(level[name] + 1, level[other]), strict=True):
                layers[index].append(point)
            links += pairwise([name, *points, other])
    layers = ordered(layers, links)
    across = spread(layers, links)
    left = min(x - width(item) / 2 for item, x in across.items()) - 2
    place = {
        item: (across[item] - left, index * LAYER + 2.0) for index, row in enumerate(layers) for item in row
    }
    right = max(x + width(item) / 2 for item, (x, _) in place.items()) + 2
    return Picture(
        right,
        (len(rows) - 1) * LAYER + BOX[1] + 4,
        BOX,
        {name: place[name] for name in level},
        {
            name: [path(name, other, level, place) for other in sorted(others)]
            for name, others in graph.items()
        },
    )


def ordered(layers: list[list[Item]], links: Sequence[tuple[Item, Item]]) -> list[list[Item]]:
    """Return the layers, each in an order with few crossings of links."""
    best, fewest = layers, crossings(layers, links)
    for turn in range(ROUNDS):
        layers, down = [list(layer) for layer in layers], turn % 2 == 0
        known = neighbours(links, above=down)
        for index in range(1, len(layers)) if down else range(len(layers) - 2, -1, -1):
            beside = {item: float(rank) for rank, item in enumerate(layers[index - 1 if down else index + 1])}
            own = {item: float(rank) for rank, item in enumerate(layers[index])}
            key = {
                item: mean([beside[other] for other in known.get(item, [])] or [own[item]]) for item in own
            }
            layers[index].sort(key=key.__getitem__)
        if (count := crossings(layers, links)) < fewest:
            best, fewest = layers, count
    return best


def neighbours(links: Sequence[tuple[Item, Item]], *, above: bool) -> dict[Item, list[Item]]:
    """Return the items that each item is linked to on the layer above, or below."""
    found: dict[Item, list[Item]] = {}
    for upper, lower in links:
        item, other = (lower, upper) if above else (upper, lower)
        found.setdefault(item, []).append(other)
    return found


def crossings(layers: Sequence[Sequence[Item]], links: Sequence[tuple[Item, Item]]) -> int:
    """Count the pairs of links that cross."""
    rank = {item: (index, place) for index, layer in enumerate(layers) for place, item in enumerate(layer)}
    spans: dict[int, list[tuple[int, int]]] = {}
    for upper, lower in links:
        spans.setdefault(rank[upper][0], []).append((rank[upper][1], rank[lower][1]))
    return sum(
        (one[0] - other[0]) * (one[1] - other[1]) < 0
        for level in spans.values()
        for one, other in combinations(level, 2)
    )


def spread(layers: Sequence[Sequence[Item]], links: Sequence[tuple[Item, Item]]) -> dict[Item, float]:
    """Return the horizontal position of each item."""
    across: dict[Item, float] = {}
    for layer in layers:
        across |= zip(layer, packed(layer, [0.0] * len(layer)), strict=True)
    known = [neighbours(links, above=True), neighbours(links, above=False)]
    for _ in range(ROUNDS):
        for layer in (*layers, *reversed(layers)):
            wanted = []
            for item in layer:
                others = [other for side in known for other in side.get(item, [])]
                wanted.append(mean([across[other] for other in others] or [across[item]]))
            across |= zip(layer, packed(layer, wanted), strict=True)
    return across


def packed(layer: Sequence[Item], wanted: Sequence[float]) -> list[float]:
    """Return the positions closest to `wanted` that keep the order and the gaps (isotonic regression)."""
    gaps = [(width(one) + width(other)) / 2 + GAP for one, other in pairwise(layer)]
    offsets = list(accumulate(gaps, initial=0.0))
    pools: list[tuple[float, int]] = []  # mean and number of adjacent items that touch
    for want, offset in zip(wanted, offsets, strict=True):
        middle, count = want - offset, 1
        while pools and pools[-1][0] > middle:
            other, many = pools.pop()
            middle, count = (middle * count + other * many) / (count + many), count + many
        pools.append((middle, count))
    middles = [middle for middle, count in pools for _ in range(count)]
    return [middle + offset for middle, offset in zip(middles, offsets, strict=True)]


def width(item: Item) -> float:
    """Return the width of a box, or of the lane of a long edge."""
    return BOX[0] if isinstance(item, str) else LANE


def path(name: str, other: str, level: Mapping[str, int], place: Mapping[Item, tuple[float, float]]) -> str:
    """Return the SVG path of an edge: a smooth curve through its points on the layers in between."""
    (x, y), (end_x, end_y) = place[name], place[other]
    between = [place[name, other, index] for index in range(level[name] + 1, level[other])]
    points = [(x, y + BOX[1]), *((x, y + BOX[1] / 2) for x, y in between), (end_x, end_y)]
    slopes = [(below[0] - above[0]) / (below[1] - above[1]) for above, below in pairwise(points)]
    # Zero slope where the curve turns, so that it stays between its points. Its ends are vertical.
    inner = [0.0 if one * other <= 0 else (one + other) / 2 for one, other in pairwise(slopes)]
    steps = [f"M{points[0][0]:.0f} {points[0][1]:.0f}"]
    for (start, stop), (leaves, meets) in zip(pairwise(points), pairwise([0.0, *inner, 0.0]), strict=True):
        third = (stop[1] - start[1]) / 3
        steps.append(
            f"C{start[0] + leaves * third:.0f} {start[1] + third:.0f} "
            f"{stop[0] - meets * third:.0f} {stop[1] - third:.0f} {stop[0]:.0f} {stop[1]:.0f}"
        )
    return "".join(steps)
