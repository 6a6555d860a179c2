"""What a graph has become: connections of each operator, and the values that are carried past layers."""

from __future__ import annotations

from dataclasses import dataclass

from fsd_inference.network.importing.problems import listed

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Carried:
    """Values that layers pass on unchanged because a later layer reads them.

    Attributes
    ----------
    nodes : tuple of str
        The operators that made the values; empty for input features.
    values : int
        Number of values.
    layers : int
        Number of layers that pass them on, at most.
    connections : int
        Connections that this takes in all, one for each value and layer.
    """

    nodes: tuple[str, ...]
    values: int
    layers: int
    connections: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Sizes of a lowered graph.

    Attributes
    ----------
    connections : tuple of (tuple of str, int)
        The operators that were composed into one block of neurons, and the connections of these, in order.
    carried : tuple of Carried
        The values that are carried, those with the most connections first.
    total : int
        Connections of all layers.
    """

    connections: tuple[tuple[tuple[str, ...], int], ...]
    carried: tuple[Carried, ...]
    total: int

    @property
    def carrying(self) -> int:
        """Connections that carry values."""
        return sum(carried.connections for carried in self.carried)

    def sentences(self) -> list[str]:
        """Return what a user should know: where most connections are, and the warning, if there is one."""
        largest = sorted(self.connections, key=lambda block: -block[1])[:_NAMED]
        parts = [f"{count:,} of {named(nodes)}" for nodes, count in largest]
        said = f"becomes {self.total:,} connections: {', '.join(parts)}"
        said += (
            f", {self.total - sum(count for _, count in largest):,} others" if len(self.connections) > _NAMED else ""
        )
        warning = self.warning()
        return [said] if warning is None else [said, warning]

    def warning(self) -> str | None:
        """Return a sentence if more than a tenth of the connections carry values; otherwise None."""
        if self.carrying * 10 <= self.total:
            return None
        most = self.carried[0]
        of = f"the output of {named(most.nodes)}" if most.nodes else "the input features"
        return (
            f"{self.carrying:,} of {self.total:,} connections carry values past layers, most of them {of} "
            f"({most.values:,} values over {most.layers:,} {'layer' if most.layers == 1 else 'layers'}): "
            "shorter skip connections would make the network smaller"
        )


def named(nodes: tuple[str, ...]) -> str:
    """Return the names of operators that were composed, shortened."""
    return listed(nodes, most=_NAMED)
