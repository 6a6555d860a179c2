"""Schedules of faults over real processes: each run is right or says why, and leaves nothing that the next does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fsd_inference.aws.clients import Clients
from fsd_inference.aws.stack import load_stack
from fsd_inference.chaos import trial
from fsd_inference.chaos.campaign import rows, trials
from fsd_inference.chaos.client import Request
from fsd_inference.chaos.kills import problem
from fsd_inference.chaos.running import Client
from fsd_inference.chaos.schedule import Fault, Schedule
from fsd_inference.chaos.soak import soak
from fsd_inference.chaos.trial import Trials
from tests.support.cli import fsd_in
from tests.support.processes import wait_until

pytestmark = [pytest.mark.emulator, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def carrier() -> Iterator[Trials]:
    with trials() as made:
        yield made


def scheduled(place: str, *faults: Fault, attempts: int = 2) -> Schedule:
    return Schedule(0, place, 3, 1, attempts, faults)


@pytest.mark.parametrize(
    ("schedule", "verdict"),
    [
        (scheduled("local"), "right"),
        (scheduled("queue", Fault("double request", 0, request="sns.publish", times=3)), "right"),
        (scheduled("queue", Fault("partial batch", 1, request="sns.publish", times=2)), "right"),
        (scheduled("queue", Fault("reorder", 0, request="sqs.receive", times=20)), "right"),
        (scheduled("object", Fault("lose answer", 4, request="s3.put", times=2)), "right"),
        (scheduled("object", Fault("throttle", 2, request="s3.get", seconds=1.5)), "right"),
        (scheduled("object", Fault("clock skew", seconds=600.0)), "right"),
        (scheduled("local", Fault("cut connections", 3, 1)), "right"),
        (scheduled("local", Fault("rank out of memory", 3, 1)), "right"),
        (scheduled("object", Fault("kill client", 2)), "ended"),
        (scheduled("local", Fault("signal client", 2, detail="SIGTERM")), "ended"),
    ],
    ids=str,
)
def test_a_schedule_ends_as_it_should(carrier: Trials, schedule: Schedule, verdict: str) -> None:
    outcome = carrier.run(schedule)
    assert outcome.verdict == verdict, str(outcome)
    assert outcome.is_fired


@pytest.mark.parametrize("place", ["local", "queue", "object"])
@pytest.mark.parametrize(("attempts", "verdict"), [(1, "error"), (2, "right")])
def test_a_killed_rank(carrier: Trials, place: str, attempts: int, verdict: str) -> None:
    outcome = carrier.run(scheduled(place, Fault("kill rank", 5, 1), attempts=attempts))
    assert outcome.verdict == verdict, str(outcome)
    assert problem(outcome) is None
    assert rows([outcome])[0][:3] == ("kill rank", 1, int(verdict == "right"))


@pytest.mark.parametrize("place", ["local", "queue", "object"])
def test_an_attempt_goes_on_from_a_checkpoint(carrier: Trials, place: str) -> None:
    outcome = carrier.run(replace(scheduled(place, Fault("kill rank", 9, 1)), checkpoint_every=2))
    assert outcome.verdict == "right", str(outcome)
    assert outcome.resumed_at in {2, 4, 6, 8, 10}
    assert f"(from layer {outcome.resumed_at} on)" in str(outcome)


@pytest.mark.functions
@pytest.mark.timeout(300)
@pytest.mark.parametrize("place", ["queue on functions", "object on functions"])
@pytest.mark.parametrize(("attempts", "verdict"), [(1, "error"), (2, "right")])
def test_a_killed_coordinator(carrier: Trials, place: str, attempts: int, verdict: str) -> None:
    """Nothing is left for `fsd runs clean`, though the ranks go on without their coordinator."""
    fault = Fault("kill coordinator", 5, 0, request="s3.put")
    outcome = carrier.run(scheduled(place, fault, attempts=attempts))
    assert outcome.is_fired
    assert outcome.verdict == verdict, str(outcome)
    assert outcome.left == ()
    if outcome.error is not None:
        assert outcome.error["operation"] == "coordinate"


def test_another_answer_is_noticed(carrier: Trials) -> None:
    outcome = replace(carrier, right="another").run(scheduled("local"))
    assert outcome.verdict == "WRONG"


def test_a_run_without_end_is_noticed_and_ended(carrier: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_ATTEMPT_S", 1.0)
    monkeypatch.setattr(trial, "_AFTER_S", 1.0)
    outcome = carrier.run(scheduled("local", Fault("stop rank", 2, 1), attempts=1))
    assert outcome.verdict == "HANG"


def test_what_is_left_is_noticed(carrier: Trials) -> None:
    site = carrier.open_site(False)
    stack = load_stack(site.direct)
    run = "0123456789abcdef" * 2
    clients = Clients.of_stack(stack)
    clients.s3.put_object(Bucket=stack.run_buckets[0], Key=f"runs/{run}/input", Body=b"left")
    clients.sqs.send_message(QueueUrl=stack.lanes[0].queue_urls[0], MessageBody="left")
    clients.close()
    left = site.left()
    assert left.runs == {run}
    assert left.what == (f"object runs/{run}/input", "1 messages in queues")
    outcome = carrier.run(scheduled("queue"))  # `fsd runs clean` and the next run remove both
    assert outcome.verdict == "right", str(outcome)
    assert outcome.left
    assert site.left().what == ()


def test_a_client_leaves_no_process(carrier: Trials, tmp_path: Path) -> None:
    with Client(Request("local", 2, 1, 1, None), tmp_path / "tmp") as running:
        assert running.prepared(60)
        assert len(running.processes()) == 2  # itself and the fork server
    wait_until(lambda: running.processes() == set(), "the client and its fork server have ended", 10)


def test_two_programs_for_seconds(carrier: Trials, tmp_path: Path) -> None:
    ticks: list[float] = []
    found = soak(6.0, carrier.open_site(False), tmp_path, carrier.right, ticks.append)
    assert found.left == ()
    assert [program.wrong for program in found.programs] == [0, 0]
    assert all(program.runs > 0 and program.ended_well and program.samples for program in found.programs)
    assert ticks == sorted(ticks)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    fsd = fsd_in(capsys)
    record = fsd("chaos", "--channel", "local", "--schedules", "2", "--seed", "0", "--json").json()
    assert record["failures"] == 0
    assert [each["schedule"]["place"] for each in record["outcomes"]] == ["local", "local"]
    assert "--channel must be one of local, queue, object" in fsd("chaos", "--channel", "mpi").error()
    assert "leave out --ranks functions" in fsd("chaos", "--kills", "--ranks", "functions").error()
    assert "--soak runs two programs" in fsd("chaos", "--soak", "1", "--channel", "queue").error()
