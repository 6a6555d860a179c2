"""`fsd infer --plan auto`: how the planner would run a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fsd_inference.cli.advise import check_network
from fsd_inference.cli.console import Output
from fsd_inference.errors import SettingError
from fsd_inference.units import seconds_text, usd_text

if TYPE_CHECKING:
    from fsd_inference.forecast.payloads import Payloads
    from fsd_inference.stack_description import StackSpec


@dataclass(frozen=True, slots=True)
class RunChoice:
    """How a batch is to be run, and what its exchanges carry if that is known already: for a prediction."""

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
) -> RunChoice:
    """Return the best way to run a batch on functions, and say which it is and what would be better.

    Servers are named alone: they are not something a session runs. Where the stack has functions, no size above theirs
    is planned with, and the smallest that is as large as the plan's is used.

    Raises
    ------
    SettingError
        The network is one of shards, or no functions answer within the limits.
    """
    from fsd_inference.forecast.advising import advise  # noqa: PLC0415
    from fsd_inference.forecast.cutting import cut_network  # noqa: PLC0415
    from fsd_inference.forecast.options import Question  # noqa: PLC0415
    from fsd_inference.network import Network, load_inputs  # noqa: PLC0415

    check_network(network)
    loaded = Network.load(network)
    x = load_inputs(batch, loaded.widths[0])
    question = Question(x.shape[0], deadline_s, budget_usd)
    sizes = [] if stack is None or stack.functions is None else [worker.memory_mb for worker in stack.functions.workers]
    if sizes:
        question = replace(question, largest_mb=max(sizes))
    with out.progress() as tasks:
        cuts = cut_network(loaded, question, x=x, progress=tasks)
        advice = advise(loaded, question, cuts=cuts, progress=tasks)
    possible = [option for option in advice.options if option.problem is None]
    ours = next((option for option in possible if not option.is_server), None)
    if ours is None:
        of_stack = f" --largest-function {max(sizes)}" if sizes else ""
        raise SettingError(f"--plan auto: no functions can answer {batch} like that; `fsd advise{of_stack}` says why")
    said = f"{ours.name} ({ours.reason}): on AWS {seconds_text(ours.wall_s)}, USD {usd_text(ours.usd or 0.0)} expected"
    if possible[0] is not ours:
        best = possible[0]
        said += f"; better, but not run here: {best.name} (USD {usd_text(best.usd or 0.0)})"
    out.note(f"plan: {said}")
    channel = "object" if ours.variant == "express" else ours.variant
    workers = None if channel == "serial" else ours.workers
    planned_mb = ours.memory_mb or 0
    memory_mb = min((size for size in sizes if size >= planned_mb), default=None)
    known = cuts[ours.workers].payloads
    return RunChoice(channel, workers, ours.replicas, ours.branching, ours.micro_batches, memory_mb, known)
