"""`fsd demo`: run a Graph Challenge network on P workers over an emulated AWS, and compare with one process."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsd_inference.cli.console import Output, facts, requests_text, table
from fsd_inference.cli.options import Json, examples
from fsd_inference.cli.outputs import check_output
from fsd_inference.temporary import TemporaryFolder
from fsd_inference.units import bytes_text, seconds_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fsd_inference.engine.output_forms import Rows
    from fsd_inference.session import Inference

EXAMPLES = examples("fsd demo", "fsd demo --workers 8 --neurons 4096 --layers 120")

_SAMPLES = 1797  # all of scikit-learn's digits, none of them shifted
_CHANNELS = ("queue", "object")
_RUNS = Path("runs")


def demo(
    workers: Annotated[int, typer.Option("--workers", min=1, help="Number of workers (P).")] = 4,
    neurons: Annotated[
        int, typer.Option("--neurons", help="Neurons of each layer: 1024, 4096, 16384 or 65536.")
    ] = 1024,
    layers: Annotated[int, typer.Option("--layers", min=1, help="Number of layers, at most 1920.")] = 120,
    as_json: Json = False,
) -> None:
    """Classify handwritten digits over SNS and SQS and over S3, both emulated on this machine, and compare the outputs.

    The outputs of the workers must equal those of a single process bit for bit; otherwise the exit code is 1.
    """
    from fsd_inference.aws.local import temporary_stack  # noqa: PLC0415
    from fsd_inference.aws.provision import StackSettings  # noqa: PLC0415
    from fsd_inference.aws.stack import save_stack  # noqa: PLC0415
    from fsd_inference.network import digits, graph_challenge  # noqa: PLC0415
    from fsd_inference.partitioning import partition  # noqa: PLC0415
    from fsd_inference.session import Session  # noqa: PLC0415

    out = Output(as_json)
    network = graph_challenge(neurons, layers)
    x = digits(neurons, _SAMPLES)
    folder = _new_folder()
    out.note(f"{neurons} neurons x {layers} layers, {_SAMPLES} handwritten digits, {workers} workers")
    with out.progress() as tasks, TemporaryFolder("demo") as temporary:
        shards, stack = temporary / "shards", temporary / "stack.json"
        out.note("serial: one process")
        with Session(network, progress=tasks) as session:
            expected = session.infer(x)
        out.note("partition: method graph, once for both channels")
        tasks.begin("partition", None)
        partition(network, shards, workers=workers, method="graph")
        tasks.end("partition")
        answers = {}
        with temporary_stack(StackSettings("fsd-demo", ranks=workers, purge_settle_s=0)) as made:
            save_stack(made, stack)
            for channel in _CHANNELS:
                out.note(f"{channel}: {workers} workers over the emulated AWS")
                with Session(shards, channel=channel, stack=stack, progress=tasks) as session:
                    answers[channel] = session.infer(x)
                answers[channel].report.save(folder / channel)
    same = {channel: _identical(expected.outputs, answer.outputs) for channel, answer in answers.items()}
    record = {
        "samples": _SAMPLES,
        "workers": workers,
        "neurons": neurons,
        "layers": layers,
        "serial": _record(expected),
        **{
            channel: {
                "identical": same[channel],
                **_record(answer),
                "report": str(folder / channel / "report.json"),
            }
            for channel, answer in answers.items()
        },
    }
    reports = facts([(f"report of {channel}", f"{folder / channel / 'report.json'}") for channel in _CHANNELS])
    out.result(record, _comparison(expected, answers, same), reports)
    if not all(same.values()):
        raise typer.Exit(1)


def _new_folder() -> Path:
    """Return the path of a new folder for the reports."""
    check_output(_RUNS, directory=True, filled=True)
    name = f"demo-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    folder, number = _RUNS / name, 1
    while folder.exists():
        number += 1
        folder = _RUNS / f"{name}-{number}"
    return folder


def _identical(a: Rows | None, b: Rows | None) -> bool:
    """Return whether two CSR outputs are equal bit for bit; both have ascending columns, as sessions return them."""
    from scipy import sparse  # noqa: PLC0415

    return (
        isinstance(a, sparse.csr_array)
        and isinstance(b, sparse.csr_array)
        and a.shape == b.shape
        and a.indptr.tolist() == b.indptr.tolist()
        and a.indices.tobytes() == b.indices.astype(a.indices.dtype).tobytes()
        and a.data.tobytes() == b.data.tobytes()
    )


def _record(answer: Inference) -> dict[str, Any]:
    figures = answer.report.to_json()
    names = ("wall_s", "compute_s", "frames", "wire_bytes", "body_bytes", "requests", "row_sends")
    return {"alive": int(answer.alive().size), **{name: figures[name] for name in names}}


def _comparison(expected: Inference, answers: dict[str, Inference], same: dict[str, bool]) -> RenderableType:
    """Return a table with one column for each channel, the serial run first."""
    runs = {"serial": expected, **answers}
    rows: list[list[str]] = [
        ["identical to serial", "", *("yes, bit for bit" if same[channel] else "NO" for channel in answers)],
        ["samples alive", *(f"{run.alive().size:,} of {run.report.samples:,}" for run in runs.values())],
        ["wall time", *(seconds_text(run.report.wall_s) for run in runs.values())],
        ["requests", "", *(f"{sum(run.report.usage.requests.values()):,}" for run in answers.values())],
        ["  by kind", "", *(requests_text(run.report.usage).replace(", ", "\n") for run in answers.values())],
        ["bytes in frames", "", *(bytes_text(run.report.usage.wire_bytes) for run in answers.values())],
        ["bytes as sent", "", *(bytes_text(run.report.usage.body_bytes) for run in answers.values())],
    ]
    return table("One process, and workers over the emulated AWS", ("", *runs), rows)
