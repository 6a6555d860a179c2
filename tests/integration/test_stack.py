"""The life cycle of a stack on the emulator: created, used, described, checked and deleted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fsd_inference.aws.check import check_stack
from fsd_inference.aws.clients import Clients, request
from fsd_inference.aws.emulator import start_emulator, stop_emulator
from fsd_inference.aws.lanes import open_lanes
from fsd_inference.aws.local import bring_up, take_down, temporary_stack
from fsd_inference.aws.provision import StackSettings, create_stack, delete_stack
from fsd_inference.aws.stack import load_stack, save_stack
from fsd_inference.chaos.proxy import Fault, FaultProxy
from fsd_inference.config import RetrySettings
from fsd_inference.errors import LaneError, SettingError, StackError
from fsd_inference.stack_description import EmulatorInfo
from fsd_inference.store.bucket import Credentials
from fsd_inference.usage import UsageMeter

pytestmark = pytest.mark.emulator


@pytest.fixture
def clients(emulator_url: str) -> Iterator[Clients]:
    made = Clients(emulator_url, emulated=True)
    yield made
    made.close()


def existing(clients: Clients, name: str) -> int:
    """Count topics, queues and buckets that belong to a stack."""
    topics = [topic["TopicArn"] for topic in clients.sns.list_topics()["Topics"]]
    queues = clients.sqs.list_queues().get("QueueUrls", [])
    buckets = [bucket["Name"] for bucket in clients.s3.list_buckets()["Buckets"]]
    return sum(name in made for made in [*topics, *queues, *buckets])


def test_messages_reach_the_ranks_they_name(clients: Clients) -> None:
    meter = UsageMeter()
    settings = StackSettings("lanes", lanes=2, ranks=103, purge_settle_s=0)
    stack = create_stack(clients, settings, meter=meter)
    assert [len(lane.topic_arns) for lane in stack.lanes] == [2, 2]
    assert stack.ranks == 103
    assert meter.snapshot().requests == {"s3.manage": 8, "sns.manage": 4 + 206, "sqs.manage": 206}
    assert existing(clients, stack.name) == 4 + 206 + 2

    def publish(lane: int, block: int, to: list[str], text: str) -> None:
        clients.sns.publish(
            TopicArn=stack.lanes[lane].topic_arns[block],
            Message=text,
            MessageAttributes={"to": {"DataType": "String.Array", "StringValue": json.dumps(to)}},
        )

    def received(lane: int, rank: int) -> list[str]:
        url = stack.lanes[lane].queue_urls[rank]
        answer = clients.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        return sorted(message["Body"] for message in answer.get("Messages", []))

    publish(0, 0, ["3", "99"], "to 3 and 99")
    publish(0, 1, ["102"], "to 102")
    publish(0, 0, ["all"], "to block 0")
    publish(1, 0, ["3"], "other lane")
    assert received(0, 3) == ["to 3 and 99", "to block 0"]
    assert received(0, 99) == ["to 3 and 99", "to block 0"]
    assert received(0, 30) == ["to block 0"]
    assert received(0, 102) == ["to 102"]
    assert received(0, 100) == []
    assert received(1, 3) == ["other lane"]
    attributes = clients.sqs.get_queue_attributes(QueueUrl=stack.lanes[1].queue_urls[7], AttributeNames=["All"])
    for name in ("MessageRetentionPeriod", "VisibilityTimeout"):
        assert int(attributes["Attributes"][name]) > settings.longest_run_s
    rules = clients.s3.get_bucket_lifecycle_configuration(Bucket=stack.run_buckets[0])["Rules"]
    assert [rule["Expiration"]["Days"] for rule in rules] == [1]

    for bucket in (stack.run_buckets[0], stack.network_bucket):
        store = clients.open_bucket(bucket, "some/folder")
        store.put("object", b"data")
        store.close()
    delete_stack(clients, stack)
    assert existing(clients, stack.name) == 0
    delete_stack(clients, stack)  # what is gone is passed over


def test_a_stack_that_is_not_as_described(clients: Clients) -> None:
    stack = create_stack(clients, StackSettings("checked", lanes=2, ranks=3))
    meter = UsageMeter()
    check_stack(clients, stack, meter=meter)
    assert meter.snapshot().requests == {"s3.manage": 2, "sns.manage": 2, "sqs.manage": 6}
    with pytest.raises(StackError, match=r"6 of 10 resources\): .*VisibilityTimeout of queue .* is 1200 s"):
        check_stack(clients, replace(stack, longest_run_s=5000.0))
    clients.sqs.delete_queue(QueueUrl=stack.lanes[1].queue_urls[2])
    with pytest.raises(
        StackError, match=r"1 of 10 resources\): cannot find queue http.*-lane1-rank2: .*create it again"
    ):
        check_stack(clients, stack)
    with pytest.raises(StackError, match=r"cannot find bucket none"):
        check_stack(clients, replace(stack, network_bucket="none"))
    delete_stack(clients, stack)


@pytest.mark.usefixtures("aws_configuration")
def test_nobody_answers_for_a_stack(clients: Clients) -> None:
    stack = create_stack(clients, StackSettings("silent", ranks=1))
    nobody = Clients("http://127.0.0.1:9")
    with pytest.raises(StackError, match=r"4 of 4 resources.*Could not connect") as caught:
        check_stack(nobody, stack)
    assert caught.value.retryable
    delete_stack(clients, stack)


def test_a_larger_message_limit_raises_the_topics(clients: Clients) -> None:
    stack = create_stack(clients, StackSettings("large", ranks=1, message_bytes=1024 * 1024))
    attributes = clients.sns.get_topic_attributes(TopicArn=stack.lanes[0].topic_arns[0])["Attributes"]
    assert attributes["MaximumMessageSize"] == "1048576"
    delete_stack(clients, stack)


def test_a_check_finds_topics_and_queues_that_take_smaller_messages(clients: Clients) -> None:
    stack = create_stack(clients, StackSettings("sized", ranks=1, message_bytes=1024 * 1024))
    check_stack(clients, stack)
    (topic,), (queue,) = stack.lanes[0].topic_arns, stack.lanes[0].queue_urls
    clients.sqs.set_queue_attributes(QueueUrl=queue, Attributes={"MaximumMessageSize": "262144"})
    with pytest.raises(StackError, match=r"1 of 4 .*Size of queue \S+ is 262144 bytes.*\(1048576\)"):
        check_stack(clients, stack)
    check_stack(clients, replace(stack, message_bytes=262144))
    clients.sns.set_topic_attributes(TopicArn=topic, AttributeName="MaximumMessageSize", AttributeValue="262143")
    with pytest.raises(StackError, match=r"1 of 4 .*Size of topic \S+ is 262143 bytes.*\(262144\)"):
        check_stack(clients, replace(stack, message_bytes=262144))
    delete_stack(clients, stack)


def test_stacks_at_an_endpoint_have_messages_of_the_usual_size(clients: Clients) -> None:
    stack = create_stack(clients, StackSettings("usual", ranks=1))
    assert stack.message_bytes == 262144
    check_stack(clients, stack)
    delete_stack(clients, stack)


def test_a_stack_that_cannot_be_made_leaves_nothing(proxy: FaultProxy, clients: Clients) -> None:
    def hook(seen: object) -> Fault | None:
        kind, number = getattr(seen, "kind", ""), getattr(seen, "number", 0)
        return Fault(status=400, code="InvalidParameter") if kind == "sns.Subscribe" and number == 5 else None

    proxy.hook = hook
    broken = Clients(proxy.url, emulated=True)
    with pytest.raises(StackError, match=r"cannot subscribe queue broken-.*-rank"):
        create_stack(broken, StackSettings("broken", ranks=10))
    broken.close()
    assert existing(clients, "broken") == 0


def test_upkeep_is_repeated_and_counted(proxy: FaultProxy) -> None:
    clients = Clients(proxy.url, emulated=True)
    meter = UsageMeter()
    retry = RetrySettings(attempts=3, base_s=0.001)
    proxy.break_first(Fault(status=503), times=1)
    assert request("sns.manage", "list", clients.sns.list_topics, meter=meter, retry=retry) is not None
    proxy.break_first(Fault(reset=True), times=1)
    assert request("sns.manage", "list", clients.sns.list_topics, meter=meter, retry=retry) is not None
    proxy.break_first(Fault(status=500), times=9)
    with pytest.raises(StackError, match="cannot list all: the service answered 500") as caught:
        request("sns.manage", "list all", clients.sns.list_topics, meter=meter, retry=retry)
    assert caught.value.retryable
    proxy.break_first(Fault(status=403, code="AccessDenied"), times=9)
    with pytest.raises(StackError, match="403"):
        request("sns.manage", "list", clients.sns.list_topics, meter=meter, retry=retry)
    assert meter.snapshot().requests["sns.manage"] == proxy.counts.total() == 8
    assert meter.snapshot().retries == 4
    clients.close()


def test_lanes_are_leased_on_s3_and_purged_with_a_request_a_queue(proxy: FaultProxy) -> None:
    clients = Clients(proxy.url, emulated=True)
    stack = create_stack(clients, StackSettings("leases", lanes=2, ranks=3, purge_settle_s=0))
    meter = UsageMeter()
    store = clients.open_bucket(stack.run_buckets[0], meter=meter)
    table = open_lanes(store, clients, stack, meter=meter)
    proxy.reset_counts()
    first = table.acquire("run1", 0, 60, 0)
    assert meter.snapshot().requests == proxy.counts == {"s3.list": 1, "s3.put": 1}
    second = table.acquire("run2", 0, 60, 0)
    assert {first.lane, second.lane} == {0, 1}
    with pytest.raises(LaneError, match=r"lane 0 is held by run run\d, attempt 0, until \d\d:\d\d:\d\d UTC; lane 1"):
        table.acquire("run3", 0, 60, 0)
    clients.sqs.send_message(QueueUrl=stack.lanes[first.lane].queue_urls[2], MessageBody="leftover")
    first = table.renew(first, 60)
    proxy.reset_counts()
    before = meter.snapshot().requests
    table.release(first)
    assert meter.snapshot().requests - before == proxy.counts == {"s3.put": 2, "sqs.purge": 3}
    third = table.acquire("run3", 0, 60, 0)
    assert third.lane == first.lane
    assert "Messages" not in clients.sqs.receive_message(QueueUrl=stack.lanes[third.lane].queue_urls[2])
    with pytest.raises(LaneError):
        table.release(first)
    slow = open_lanes(store, clients, replace(stack, purge_settle_s=60.0), meter=meter)
    proxy.reset_counts()
    slow.release(third, received=1)  # nothing is purged where that takes time
    assert proxy.counts == {"s3.put": 1}
    assert slow.acquire("run4", 0, 60, 0).lane == third.lane
    store.close()
    delete_stack(clients, stack)
    clients.close()


def test_a_stack_brings_its_emulator(tmp_path: Path) -> None:
    with temporary_stack(StackSettings("own", lanes=1, ranks=2, purge_settle_s=0)) as stack:
        assert stack.emulator is not None
        assert stack.endpoint_url == stack.emulator.endpoint_url
        save_stack(stack, tmp_path / "stack.json")
        assert load_stack(tmp_path / "stack.json") == stack
        clients = Clients.of_stack(stack)
        assert existing(clients, stack.name) == 5
        clients.close()
    assert not is_running(stack.emulator.pid)
    assert not Path(stack.emulator.directory).exists()


def test_another_process_takes_the_stack_down(tmp_path: Path) -> None:
    up = (
        "import sys; from pathlib import Path; from fsd_inference.aws.local import bring_up;"
        "from fsd_inference.aws.provision import StackSettings; from fsd_inference.aws.stack import save_stack;"
        "save_stack(bring_up(StackSettings('other', ranks=1)), Path(sys.argv[1]))"
    )
    path = tmp_path / "stack.json"
    subprocess.run([sys.executable, "-c", up, path], check=True, timeout=60)
    stack = load_stack(path)
    assert stack.emulator is not None
    assert is_running(stack.emulator.pid)
    take_down(stack)
    assert not is_running(stack.emulator.pid)
    take_down(stack)


@pytest.mark.usefixtures("aws_configuration")
def test_a_stack_at_an_endpoint_url(emulator_url: str, clients: Clients) -> None:
    stack = bring_up(StackSettings("given", ranks=1), endpoint_url=emulator_url)
    assert stack.emulator is None
    assert existing(clients, stack.name) == 4
    take_down(stack)
    assert existing(clients, stack.name) == 0


TOKEN = "0" * 32


@pytest.mark.parametrize(
    "arguments",
    [(), (f"x{TOKEN}",), (f"fsd_emulator={TOKEN}0",), (f"fsd_emulator={TOKEN}",)],
    ids=["no token", "part of an argument", "longer token", "another directory"],
)
def test_only_our_own_process_is_ended(arguments: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "fsd-emulator-mine"
    folder.mkdir()
    command = [sys.executable, "-c", "import time; time.sleep(60)", *arguments]
    other = subprocess.Popen(command, start_new_session=True)
    try:
        info = EmulatorInfo("http://127.0.0.1:1", other.pid, TOKEN, str(folder))
        assert stop_emulator(info) is False
        assert other.poll() is None
        assert folder.exists()
    finally:
        os.killpg(other.pid, signal.SIGKILL)
        other.wait()


def test_only_the_directory_of_the_emulator_is_removed(tmp_path: Path) -> None:
    folder, link = tmp_path / "fsd-emulator-mine", tmp_path / "fsd-emulator-link"
    folder.mkdir()
    (folder / "token").write_text(TOKEN)
    link.symlink_to(folder)
    no_process = 2**22 - 1
    for directory, token in ((folder, "1" * 32), (link, TOKEN)):
        assert stop_emulator(EmulatorInfo("http://127.0.0.1:1", no_process, token, str(directory))) is False
        assert folder.exists()
    assert stop_emulator(EmulatorInfo("http://127.0.0.1:1", no_process, TOKEN, str(folder))) is False
    assert not folder.exists()


def test_no_emulator_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StackError, match=r"pip install 'fsd-inference\[local\]'"):
        start_emulator()


def test_nonsense_settings() -> None:
    for wrong in (
        {"name": "X"},
        {"lanes": 0},
        {"ranks": -1},
        {"message_bytes": 2**21},
        {"longest_run_s": 50_000.0},
        {"longest_run_s": 0.0},
    ):
        with pytest.raises(SettingError):
            StackSettings(**({"name": "fine"} | wrong))


def test_credentials_and_region_of_an_emulator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    local = Clients("http://127.0.0.1:1")
    assert local.region == "us-east-1"
    assert local.credentials == Credentials("test", "test")
    with pytest.raises(SettingError, match="no AWS region"):
        Clients()
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:2")
    assert Clients().endpoint_url is None  # a stack's description says where it is
    found = Clients.of_function()
    assert (found.endpoint_url, found.region) == ("http://127.0.0.1:2", "eu-west-1")
    assert found.credentials == Credentials("mine", "secret")


def test_credentials_that_expire_are_asked_for_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A profile whose keys come from a program, as those of a login do; each time others."""
    program = tmp_path / "keys"
    program.write_text(
        "#!/bin/sh\n"
        f"echo x >> {tmp_path}/asked\n"
        'cat << END\n{"Version": 1, "AccessKeyId": "key", "SecretAccessKey": "s", "SessionToken": "t",'
        f' "Expiration": "{datetime.now(UTC) + timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}"}}\nEND\n'
    )
    program.chmod(0o755)
    (tmp_path / "config").write_text(f"[profile login]\ncredential_process = {program}\n")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "login")
    source = Clients("http://127.0.0.1:1").credentials
    assert callable(source)
    before = (tmp_path / "asked").read_text().count("x")
    assert source() == source() == Credentials("key", "s", "t")
    assert (tmp_path / "asked").read_text().count("x") > before  # within 10 minutes of their end they are renewed
    monkeypatch.setenv("AWS_PROFILE", "other")
    with pytest.raises(SettingError, match=r"profile \(other\) could not be found: set AWS_PROFILE to a profile"):
        Clients("http://127.0.0.1:1")


def is_running(pid: int) -> bool:
    """Whether a process is there and not only waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
