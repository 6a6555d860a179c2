"""`fsd infer --plan auto`: how the planner would run a batch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fsd_inference.cli.advise import check_network
from fsd_inference.cli.console import Output
from fsd_inference.errors import SettingError
from fsd_inference.units import seconds_text, usd_text


@dataclass(frozen=True, slots=True)
class Planned:
    """What a session is told."""

    channel: str
    workers: int | None
    branching: int
    micro_batches: int


def planned(network: Path, batch: Path, out: Output) -> Planned:
    """Return the best way to run a batch in one run of functions, and say which it is and what would be better.

    Servers, and replicas that share a batch, are named alone: they are not something a session runs.

    Raises
    ------
    SettingError
        The network is one of shards, or fits no functions.
    """
    from fsd_inference.cost.options import Question  # noqa: PLC0415
    from fsd_inference.cost.prices import load_prices  # noqa: PLC0415
    from fsd_inference.cost.timing import load_timing  # noqa: PLC0415
    from fsd_inference.network import Network, load_inputs  # noqa: PLC0415
    from fsd_inference.session.advising import advise  # noqa: PLC0415

    check_network(network)
    loaded = Network.load(network)
    x = load_inputs(batch, loaded.widths[0])
    with out.progress() as tasks:
        advice = advise(
            loaded, Question(x.shape[0]), timing=load_timing(), prices=load_prices(), x=x, progress=tasks
        )  # fmt: skip
    possible = [option for option in advice.options if option.problem is None]
    ours = next((option for option in possible if not option.is_server and option.replicas == 1), None)
    if ours is None:
        raise SettingError(f"--plan auto: {network} fits no run of functions; `fsd advise` says why")
    said = f"{ours.name} ({ours.reason}): on AWS {seconds_text(ours.wall_s)}, USD {usd_text(ours.usd or 0.0)} expected"
    if possible[0] is not ours:
        best = possible[0]
        said += f"; cheaper, but not run here: {best.name} (USD {usd_text(best.usd or 0.0)})"
    out.note(f"plan: {said}")
    channel = "object" if ours.variant == "express" else ours.variant
    return Planned(channel, None if channel == "serial" else ours.workers, ours.branching, ours.micro_batches)
