"""`fsd infer --plan auto`: choose how to run a batch with the planner."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fsd_inference.cli.advise import check_network
from fsd_inference.cli.console import Output
from fsd_inference.errors import SettingError
from fsd_inference.units import seconds_text, usd_text

if TYPE_CHECKING:
    from fsd_inference.forecast.payloads import Payloads
    from fsd_inference.stack_description import StackSpec


@dataclass(frozen=True, slots=True)
class RunChoice:
    """The settings with which a batch is run.

    Attributes
    ----------
    channel : str
        Name of the channel.
    workers : int or None
        Number of workers; None for the default.
    replicas : int
        Number of copies of the worker of channel `serial`.
    branching, micro_batches : int
        See `Tuning`.
    memory_mb : int or None
        Memory of the worker functions in MB; None for the default.
    known : Payloads or None
        Payloads of the exchanges if they are already computed, so that a prediction can reuse them.
    """

    channel: str
    workers: int | None
    replicas: int
    branching: int
    micro_batches: int
    memory_mb: int | None
    known: Payloads | None = None


def auto_plan(
    network: Path,
    batch: Path,
    deadline_s: float | None,
    budget_usd: float | None,
    stack: StackSpec | None,
    out: Output,
    *,
    checkpoint_every: int | Literal["auto"] = 0,
) -> RunChoice:
    """Return the best settings to run a batch on functions, and print them.

    If an option that is only modelled, such as a server, would be better, that is only printed. If the stack has
    functions, plans are limited to their memory sizes, and the run uses the smallest function that has the planned
    memory.

    Raises
    ------
    SettingError
        The network is a directory of shards, or no functions meet the deadline and the budget.
    """
    from fsd_inference.forecast.advising import advise  # noqa: PLC0415
    from fsd_inference.forecast.cutting import cut_network  # noqa: PLC0415
    from fsd_inference.forecast.options import Question  # noqa: PLC0415
    from fsd_inference.forecast.timing import load_timing  # noqa: PLC0415
    from fsd_inference.network import Network, load_inputs  # noqa: PLC0415

    check_network(network)
    loaded = Network.load(network)
    x = load_inputs(batch, loaded.widths[0])
    question = Question(x.shape[0], deadline_s, budget_usd, checkpoint_every=checkpoint_every)
    if stack is not None:
        question = replace(question, message_bytes=stack.message_bytes)
        if stack.functions is not None:
            question = replace(question, timeout_s=stack.functions.timeout_s)
    functions = () if stack is None or stack.functions is None else stack.functions.workers
    sizes = [worker.memory_mb for worker in functions if worker.managed is None]  # others are paid whether used or not
    if sizes:
        question = replace(question, largest_mb=max(sizes))
    with out.progress() as tasks:
        cuts = cut_network(loaded, question, x=x, progress=tasks)
        quota = None if stack is None else stack.publish_per_s
        advice = advise(loaded, question, timing=load_timing(publish_quota=quota), cuts=cuts, progress=tasks)
    possible = [option for option in advice.options if option.problem is None]
    ours = next((option for option in possible if not option.is_modelled_only), None)
    if ours is None:
        of_stack = f" --largest-function {max(sizes)}" if sizes else ""
        raise SettingError(
            f"--plan auto: no functions can answer {batch} within the limits; `fsd advise{of_stack}` shows why"
        )
    said = f"{ours.name} ({ours.reason}): on AWS {seconds_text(ours.wall_s)}, USD {usd_text(ours.usd or 0.0)} expected"
    if possible[0] is not ours:
        best = possible[0]
        said += f"; better, but not run here: {best.name} (USD {usd_text(best.usd or 0.0)})"
    out.note(f"plan: {said}")
    workers = None if ours.variant == "serial" else ours.workers
    planned_mb = ours.memory_mb or 0
    memory_mb = min((size for size in sizes if size >= planned_mb), default=None)
    known = cuts[ours.workers].payloads
    return RunChoice(ours.variant, workers, ours.replicas, ours.branching, ours.micro_batches, memory_mb, known)
