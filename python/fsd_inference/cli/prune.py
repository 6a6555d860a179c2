"""`fsd network prune`: remove the least important connections of a network, and show what that changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fsd_inference.cli.console import Output, Tasks, facts, table
from fsd_inference.cli.network import Target, network_record, network_rows, save_network
from fsd_inference.cli.options import Json, examples
from fsd_inference.cli.outputs import check_distinct, check_output
from fsd_inference.errors import InputError, SettingError
from fsd_inference.units import bytes_text, seconds_text, usd_text

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import RenderableType
    from scipy import sparse

    from fsd_inference.network import Network
    from fsd_inference.report.pruning_plot import PrunedPoint

EXAMPLES = examples(
    "fsd network prune net -o pruned --sparsity 0.9",
    "fsd network prune net -o pruned --sparsity 0.9 --method calibrated --input x.npy --labels y.npy --curve",
    "fsd network prune net -o pruned --by 2:4",
)

_CURVE = (0.5, 0.8, 0.9, 0.95, 0.98)
_HELD_OUT = 5  # every fifth sample measures a calibrated network, and does not calibrate it
_ABSENT = "-"
_CUTTING_S = 2.0  # seconds for partitioning each network of the table


def prune(
    network: Annotated[Path, typer.Argument(help="Directory of a network.", metavar="NETWORK")],
    output: Target,
    sparsity: Annotated[
        float | None,
        typer.Option(
            "--sparsity",
            help="Fraction to remove of the connections that dense layers would have, such as 0.9. Not with --by n:m.",
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            help="layer: the same fraction of each layer. global: the smallest weights of all layers. "
            "n:m such as 2:4: all but n of every m consecutive inputs of a neuron.",
        ),
    ] = "layer",
    method: Annotated[
        Literal["magnitude", "calibrated"],
        typer.Option(
            "--method",
            help="magnitude: remove the smallest weights. calibrated: remove those that the outputs for --input miss "
            "least, and adjust the others.",
        ),
    ] = "magnitude",
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="File of samples on which outputs are compared. For calibrated, every fifth sample is compared and "
            "the others calibrate.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="Class of each sample, to show the accuracy: .npy, .npz with the array labels, or one per line.",
        ),
    ] = None,
    curve: Annotated[
        bool,
        typer.Option("--curve", help=f"Compare also with sparsities of {', '.join(map(str, _CURVE))}."),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="File for a plot of the table (.png, .svg or .pdf; needs matplotlib)."),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", min=1, help="Number of samples in a query whose time and cost are predicted.")
    ] = 10_000,
    as_json: Json = False,
) -> None:
    """Remove the least important connections of a network.

    The result is compared with the network as it was: the connections, the size, the predicted time and cost of a
    query by the cheapest option on functions (see fsd advise); with --input the relative error of the outputs, and
    with --labels the accuracy. Biases stay.
    """
    out = Output(as_json)
    _check_flags(by, method, inputs, labels, plot, curve)
    check_output(output, directory=True)
    check_distinct(NETWORK=network, output=output, input=inputs, labels=labels, plot=plot)
    if plot is not None:
        check_output(plot)
        from fsd_inference.report.advice_plot import check_plot  # noqa: PLC0415

        check_plot(plot)
    from fsd_inference.network import Network, load_classes, load_inputs  # noqa: PLC0415
    from fsd_inference.network.pruning import prune as pruned_network  # noqa: PLC0415

    given = Network.load(network)
    x = None if inputs is None else load_inputs(inputs, given.widths[0])
    classes = None if labels is None else load_classes(labels)
    calibrating, comparing = _split(x, classes, method)
    with out.progress() as tasks:

        def pruned_to(share: float | None) -> Network:
            tasks.begin("pruning", len(given))
            found = pruned_network(
                given, share, by=by, x=calibrating, progress=lambda done: tasks.advance("pruning", done)
            )
            tasks.end("pruning")
            return found

        result = pruned_to(sparsity)
        compared = _Compared(given, *comparing, batch, tasks)
        points = [compared.point("given", given), compared.point(_name(by, sparsity), result)]
        points += [
            compared.point(_name(by, share), pruned_to(share)) for share in _CURVE if curve and share != sparsity
        ]
    points.sort(key=lambda point: -point.connections)
    saved = save_network(out, result, output)
    if plot is not None:
        from fsd_inference.report.pruning_plot import plot_pruning  # noqa: PLC0415

        plot_pruning(points, f"{given.name}: {method} pruning, by {by}", plot)
    record = network_record(saved, output) | {"points": [asdict(point) for point in points]}
    samples = 0 if comparing[0] is None else int(comparing[0].shape[0])
    out.result(record, _table(points, samples, batch), facts(network_rows(saved, output)))


def _check_flags(
    by: str, method: str, inputs: Path | None, labels: Path | None, plot: Path | None, curve: bool
) -> None:
    if method == "calibrated" and inputs is None:
        raise SettingError("--method calibrated needs a sample of the inputs: give --input FILE")
    if labels is not None and inputs is None:
        raise SettingError("--labels are the classes of the samples of --input: give --input FILE as well")
    if plot is not None and inputs is None:
        raise SettingError("--plot draws the error of the outputs for --input: give --input FILE as well")
    if curve and ":" in by:
        raise SettingError(f"--by {by} has one sparsity only; omit --curve, or prune by layer or global")


def _name(by: str, sparsity: float | None) -> str:
    return by if sparsity is None else f"{100 * sparsity:.6g}%"


Sample = tuple["sparse.csr_array | None", "NDArray[Any] | None"]


def _split(
    x: sparse.csr_array | None, classes: NDArray[Any] | None, method: str
) -> tuple[sparse.csr_array | None, Sample]:
    """Return the samples that calibrate, if any do, and those that are compared, with their classes."""
    if x is not None and classes is not None and len(classes) != x.shape[0]:
        raise InputError(f"--labels has {len(classes):,} classes, but --input {x.shape[0]:,} samples")
    if x is None or method == "magnitude":
        return None, (x, classes)
    if x.shape[0] < _HELD_OUT:
        raise InputError(f"--method calibrated needs at least {_HELD_OUT} samples, of which it compares one in five")
    import numpy as np  # noqa: PLC0415

    is_held_out = np.arange(x.shape[0]) % _HELD_OUT == _HELD_OUT - 1
    return x[~is_held_out], (x[is_held_out], None if classes is None else classes[is_held_out])


class _Compared:
    """Compares pruned networks with the given one.

    Parameters
    ----------
    network : Network
        The given one.
    x : csr_array, optional
        Samples for which outputs are compared.
    classes : ndarray, optional
        Their classes.
    batch : int
        Samples of a query whose time and cost are predicted.
    tasks : Tasks
        Receives the progress.
    """

    def __init__(
        self,
        network: Network,
        x: sparse.csr_array | None,
        classes: NDArray[Any] | None,
        batch: int,
        tasks: Tasks,
    ) -> None:
        from fsd_inference.engine.serial import serial_outputs  # noqa: PLC0415

        self._x, self._classes, self._batch, self._tasks = x, classes, batch, tasks
        self._dense = sum(inputs * outputs for inputs, outputs in pairwise(network.widths))
        self._expected = None if x is None else serial_outputs(network, x)

    def point(self, name: str, network: Network) -> PrunedPoint:
        """Return what a network needs, and how far its outputs are from those of the given one."""
        from fsd_inference.engine.serial import serial_outputs  # noqa: PLC0415
        from fsd_inference.forecast.advising import advise  # noqa: PLC0415
        from fsd_inference.forecast.options import Question  # noqa: PLC0415
        from fsd_inference.forecast.work import whole_work  # noqa: PLC0415
        from fsd_inference.network import accuracy  # noqa: PLC0415
        from fsd_inference.report.pruning_plot import PrunedPoint  # noqa: PLC0415

        error = right = None
        if self._x is not None and self._expected is not None:
            outputs = serial_outputs(network, self._x)
            error = _relative(outputs, self._expected)
            if self._classes is not None:
                right = accuracy(outputs, self._classes, network.labels)
        advice = advise(network, Question(self._batch), x=self._x, cutting_s=_CUTTING_S, progress=self._tasks)
        best = next(option for option in advice.options if option.instance is None)
        return PrunedPoint(
            name,
            network.connections,
            network.connections / self._dense,
            int(whole_work(network).shard_bytes.sum()),
            best.name if best.problem is None else best.problem,
            best.wall_s if best.problem is None else None,
            best.usd if best.problem is None else None,
            error,
            right,
        )


def _relative(outputs: sparse.csr_array, expected: sparse.csr_array) -> float | None:
    """Return the norm of the difference relative to that of the expected outputs; None if these are all zero."""
    import numpy as np  # noqa: PLC0415
    from scipy.sparse import linalg  # noqa: PLC0415

    norm, changed = (linalg.norm(rows.astype(np.float64)) for rows in (expected, outputs - expected))
    return float(changed / norm) if norm else None


def _table(points: list[PrunedPoint], samples: int, batch: int) -> RenderableType:
    """Return the table of all points, without the columns that no point has."""
    compared = f"outputs for {samples:,} samples; " if samples else ""
    title = f"{compared}predicted for a query of {batch:,} samples, in USD of us-east-1"
    columns: dict[str, list[str]] = {
        "pruned": [point.name for point in points],
        "weights": [f"{point.connections:,}" for point in points],
        "size": [bytes_text(point.size) for point in points],
        "error": [_text(point.error, "{:.1%}".format) for point in points],
        "accuracy": [_text(point.accuracy, "{:.1%}".format) for point in points],
        "option": [point.option for point in points],
        "time": [_text(point.wall_s, seconds_text) for point in points],
        "USD": [_text(point.usd, usd_text) for point in points],
    }
    shown = {name: cells for name, cells in columns.items() if any(cell != _ABSENT for cell in cells)}
    return table(title, shown, zip(*shown.values(), strict=True))


def _text(value: float | None, write: Callable[[float], str]) -> str:
    return _ABSENT if value is None else write(value)
