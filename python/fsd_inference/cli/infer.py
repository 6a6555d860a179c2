"""`fsd infer`: run inference of a batch on this machine or on a stack's functions, with one or more workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fsd_inference.atomic import atomic_files
from fsd_inference.channel_names import CHANNELS
from fsd_inference.cli.advise import seconds_of
from fsd_inference.cli.auto_plan import RunChoice, auto_plan
from fsd_inference.cli.completion import networks
from fsd_inference.cli.console import Output, facts
from fsd_inference.cli.infer_parts import OutputFormat, alive_mask, infer_parts, part_outputs
from fsd_inference.cli.infer_verify import earlier_run, save_report, verify_run
from fsd_inference.cli.options import (
    HANDED_ON_S,
    CheckpointEvery,
    Json,
    Method,
    Profile,
    channel_name,
    examples,
    use_profile,
)
from fsd_inference.cli.outputs import check_distinct, check_outputs
from fsd_inference.config import Clocks, FailurePolicy, FunctionSettings, Tuning
from fsd_inference.errors import RunError, SettingError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from fsd_inference.forecast.payloads import Payloads
    from fsd_inference.prediction import Prediction
    from fsd_inference.session import Inference, Session
    from fsd_inference.stack_description import StackSpec

EXAMPLES = examples(
    "fsd infer net digits.npz -o out.npz --categories categories.tsv",
    "fsd infer net digits.npz -o out.npz --channel queue --workers 4 --report run",
    "fsd infer net digits.npz -o out.npz --replicas 2",
    "fsd infer net digits.npz -o out.npz --channel queue --workers 4 --verify-against run",
    "fsd infer net samples.csv -o labels.csv --argmax",
    "fsd infer net parts -o outputs/ --format parquet",
    "fsd infer net-p8 digits.npz -o out.npz --channel local --micro-batches 2",
    "fsd infer net-p8 digits.npz -o out.npz --channel queue --wire bfloat16",
    "fsd infer net digits.npz -o out.npz --channel queue --workers 8 --stack stack.json",
    "fsd infer net digits.npz -o out.npz --plan auto --deadline 30s",
)


def infer(
    network: Annotated[
        Path,
        typer.Argument(
            help="Directory of a network, or of shards written by `fsd partition`.",
            metavar="NETWORK|DIR",
            autocompletion=networks,
        ),
    ],
    batch: Annotated[
        Path,
        typer.Argument(
            help="Inputs, samples x features: SciPy sparse or PyData sparse .npz, dense .npy, .mtx, .svm, .svmlight, "
            ".libsvm, .csv, .tsv (dense or Graph Challenge), .parquet, .arrow, .feather, .h5ad; text also .gz; or a "
            "directory of such files.",
            metavar="INPUT",
        ),
    ],
    output_path: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            help="File to write, samples x outputs: SciPy's sparse .npz, or dense .npy, .csv or .parquet. Of a network "
            "whose output function is argmax or top_k: the indices of the largest outputs. DIR/, which ends with a "
            "slash: directory for one file per file of INPUT, which are then read one after the other.",
            metavar="FILE|DIR/",
        ),
    ],
    output_format: Annotated[
        OutputFormat | None,
        typer.Option("--format", help="With --output DIR/: format of the files. Default: npz."),
    ] = None,
    argmax: Annotated[
        bool,
        typer.Option("--argmax", help="Write one label per sample instead: the index of its largest output, from 0."),
    ] = False,
    channel: Annotated[
        str | None,
        typer.Option(
            "--channel",
            envvar="FSD_CHANNEL",
            parser=channel_name,
            autocompletion=lambda: list(CHANNELS),
            metavar=f"[{'|'.join(CHANNELS)}]",
            help="How workers communicate. serial: one worker (default). local: processes on this machine over "
            "sockets. queue: SNS and SQS. object: S3.",
        ),
    ] = None,
    plan: Annotated[
        Literal["auto"] | None,
        typer.Option(
            "--plan",
            help="auto: choose channel, workers, replicas and micro-batches as `fsd advise` recommends.",
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline",
            help="With --plan auto: maximum time on AWS, such as 30s or 2m; the cheapest plan that meets it is used.",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget",
            help="With --plan auto: maximum cost on AWS in USD; without --deadline the fastest such plan is used.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Number of workers (P). Default: 1, or the number of shards in DIR."),
    ] = None,
    replicas: Annotated[
        int,
        typer.Option(
            "--replicas",
            min=1,
            help="Number of copies of the worker of channel serial, which process slices of the batch in parallel.",
        ),
    ] = 1,
    method: Annotated[
        Method | None, typer.Option("--partition", help="Method that assigns neurons to workers. Default: graph.")
    ] = None,
    micro_batches: Annotated[
        int,
        typer.Option(
            "--micro-batches",
            min=1,
            help="Number of parts that the batch is split into; more parts hide latency but need more requests.",
        ),
    ] = 1,
    branching: Annotated[
        int, typer.Option("--branching", min=1, help="Number of workers that each worker starts.")
    ] = 4,
    wire: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option(
            "--wire",
            help="Number format of what workers send to each other. bfloat16 and float16 send fewer bytes, but the "
            "outputs are then not bit-identical to those of one worker: each value that is sent has a relative error "
            "of up to 2^-8 or 2^-11.",
        ),
    ] = "float32",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Number of compute threads of each worker.")] = 1,
    checkpoint_every: CheckpointEvery = 0,
    restart_stragglers: Annotated[
        bool,
        typer.Option(
            "--restart-stragglers",
            help="With --checkpoint-every: if one worker computes much slower than the others, end the attempt and go "
            "on from the last checkpoint with other workers, where that is estimated to save time.",
        ),
    ] = False,
    run_timeout: Annotated[
        str | None,
        typer.Option(
            "--run-timeout",
            metavar="TIME",
            help="Time after which a run is given up, such as 90s, 30m or 2h. Default: 15m; with checkpoints on a "
            "stack's functions, which hand the run on at their own time limit, 12h.",
        ),
    ] = None,
    no_overlap: Annotated[
        bool,
        typer.Option("--no-overlap", help="Do not overlap computation and communication: send only complete layers."),
    ] = False,
    stack: Annotated[
        Path | None,
        typer.Option(
            "--stack",
            envvar="FSD_STACK",
            help="The stack.json of a stack. If it has functions, they are the workers and the network must have "
            "been pushed; otherwise workers are local processes. Default: a temporary emulated stack.",
        ),
    ] = None,
    memory_mb: Annotated[
        int | None,
        typer.Option(
            "--memory",
            min=1,
            help="Memory of the worker functions in MB. Default: the smallest that suffices by estimate.",
        ),
    ] = None,
    memory_limit: Annotated[
        int | None,
        typer.Option(
            "--memory-limit",
            min=1,
            help="With --channel serial on this machine: maximum memory in MB. A larger network is read as it is used.",
        ),
    ] = None,
    synchronous: Annotated[
        bool,
        typer.Option(
            "--synchronous",
            help="Keep one connection to the coordinator function open instead of polling the run's status.",
        ),
    ] = False,
    profile: Profile = None,
    categories: Annotated[
        Path | None,
        typer.Option(
            "--categories",
            help="File to write: the numbers of samples with any output > 0, one a line, counted from 1.",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Directory for report.json, report.html and trace.json.")
    ] = None,
    plots: Annotated[
        bool,
        typer.Option(
            "--plots", help="Also write timeline.png, layers.png and matrix.png to --report (needs matplotlib)."
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Add a digest of each layer to the report, by which `fsd diff` compares runs: the same however "
            "the work is divided.",
        ),
    ] = False,
    verify_against: Annotated[
        Path | None,
        typer.Option(
            "--verify-against",
            help="Directory or report.json of an earlier run with --verify, which this implies. If a layer's outputs "
            "differ, nothing but --report is written, and the exit code is 1.",
            metavar="RUN",
        ),
    ] = None,
    predict: Annotated[
        bool,
        typer.Option(
            "--predict",
            help="First predict requests, bytes, cost and time, which takes seconds; implied by --plan auto.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run inference of a batch; outputs are identical bit for bit on every channel and for any number of workers.

    Only --wire changes that.
    """
    out = Output(as_json)
    use_profile(profile)
    output = Path(output_path)
    is_in_parts = output_path.endswith(os.sep)
    if not is_in_parts:
        _check_no_format(output_format)
    check_outputs(output, is_in_parts, categories, report, plots)
    for read in (batch, *(batch.iterdir() if batch.is_dir() else ())):
        check_distinct(NETWORK=network, INPUT=read, output=output, categories=categories, report=report, stack=stack)
    described = _check_before(network, method, stack)
    earlier = None if verify_against is None else earlier_run(verify_against, report, is_in_parts=is_in_parts)
    from fsd_inference.network import check_output_format, load_inputs  # noqa: PLC0415
    from fsd_inference.session import Session  # noqa: PLC0415

    check_output_format(f".{output_format or 'npz'}" if is_in_parts else output)
    outputs = part_outputs(batch, output, output_format or "npz") if is_in_parts else None
    choice = RunChoice(channel or "serial", workers, replicas, branching, micro_batches, memory_mb)
    if plan is not None:
        _check_unplanned(choice, (channel, workers, method), wire)
        deadline_s = None if deadline is None else seconds_of(deadline, "--deadline")
        choice = auto_plan(
            network,
            batch if outputs is None else next(iter(outputs)),
            deadline_s,
            budget,
            described,
            out,
            checkpoint_every=checkpoint_every,
        )
    elif (deadline, budget) != (None, None):
        raise SettingError("--deadline and --budget need --plan auto")
    with (
        out.progress() as tasks,
        Session(
            network,
            channel=choice.channel,
            workers=choice.workers,
            replicas=choice.replicas,
            stack=stack,
            partition=method,
            output="argmax" if argmax else "rows",
            wire=wire,
            verify=verify or earlier is not None,
            tuning=Tuning(
                branching=choice.branching,
                micro_batches=choice.micro_batches,
                threads=threads,
                overlap=not no_overlap,
            ),
            functions=FunctionSettings(memory_mb=memory_mb or choice.memory_mb, synchronous=synchronous),
            failures=FailurePolicy(
                checkpoint_every=checkpoint_every,
                restart_stragglers=restart_stragglers,
                clocks=_clocks(run_timeout, described if checkpoint_every else None),
            ),
            memory_limit_mb=memory_limit,
            progress=tasks,
        ) as session,
    ):

        def run(samples: csr_array, report: Path | None) -> Inference:
            predicted = _predicted(session, samples, choice.known, out) if predict or plan is not None else None
            try:
                return session.infer(samples, predicted=predicted)
            except RunError:
                save_report(session.report, report, plots, out)
                raise

        if outputs is None:
            inference = run(load_inputs(batch, session.features), report)
            if verify_against is not None and earlier is not None:
                verify_run(
                    inference.report, earlier, verify_against, lambda found: save_report(found, report, plots, out)
                )
        else:
            totals = infer_parts(
                outputs, batch, session.features, run, tasks, categories=categories, report=report, plots=plots
            )
    if outputs is not None:
        out.result(totals.record(), facts(totals.rows(output, report)))
        return
    _write(inference, output, categories, report, plots)
    out.result(inference.report.to_json(), _summary(inference, output, report, verify_against))


def _check_no_format(output_format: OutputFormat | None) -> None:
    if output_format is not None:
        raise SettingError("--format is for --output DIR/: of a file, the suffix is the format")


def _check_unplanned(choice: RunChoice, optional: tuple[object, ...], wire: str) -> None:
    """Reject what is given by hand although --plan auto chooses it; `optional` has options without a default."""
    given = any(option is not None for option in optional)
    if given or (choice.replicas, choice.micro_batches, choice.branching) != (1, 1, 4):
        raise SettingError(
            "--plan auto chooses channel, workers, replicas, partition, micro-batches, branching: "
            "give none, nor FSD_CHANNEL"
        )
    if wire != "float32":
        raise SettingError("--plan auto compares plans that exchange float32: give --wire only without it")


def _clocks(run_timeout: str | None, handed_on: StackSpec | None) -> Clocks:
    """Return the timeouts of the run; `handed_on` is the stack of a run with checkpoints, if it has one."""
    if run_timeout is not None:
        return Clocks(run_s=seconds_of(run_timeout, "--run-timeout"))
    return Clocks(run_s=HANDED_ON_S) if handed_on is not None and handed_on.functions is not None else Clocks()


def _predicted(session: Session, x: csr_array, known: Payloads | None, out: Output) -> Prediction | None:
    """Return the prediction of the run, or None: a failed prediction does not stop the run."""
    try:
        predicted = session.predict(x, known=known)
    except Exception as error:  # noqa: BLE001 - the run does not need a prediction
        out.note(f"no prediction: {error}")
        return None
    if predicted is None:
        out.note("no prediction: predictions need the network itself, not its shards")
    return predicted


def _check_before(network: Path, method: Method | None, stack: Path | None) -> StackSpec | None:
    """Check settings that a session would check late or not at all; return the description of the stack."""
    from fsd_inference.aws.stack import load_stack  # noqa: PLC0415
    from fsd_inference.partitioning import MANIFEST_FILE  # noqa: PLC0415

    if method is not None and (network / MANIFEST_FILE).is_file():
        raise SettingError(f"{network} is partitioned already; omit --partition {method}, or give the network")
    return None if stack is None else load_stack(stack)


def _write(inference: Inference, output: Path, categories: Path | None, report: Path | None, plots: bool) -> None:
    """Write all output files; none appears at its path before all are complete."""
    from fsd_inference.network import write_categories  # noqa: PLC0415

    with atomic_files() as place:
        inference.save(place(output), suffix=output.suffix)
        if categories is not None:
            write_categories(place(categories), alive_mask(inference))
        if report is not None:
            inference.report.save(report, plots=plots)


def _summary(inference: Inference, output: Path, report: Path | None, verified: Path | None) -> str:
    (_, written), *rows = inference.summary()
    rows.insert(0, ("output", f"{output}: {written}"))
    if verified is not None:
        rows.append(("verified", f"the outputs of all {inference.report.layers:,} layers are those of {verified}"))
    if report is not None:
        rows.append(("report", f"{report / 'report.html'}, with report.json and trace.json"))
    return facts(rows)
