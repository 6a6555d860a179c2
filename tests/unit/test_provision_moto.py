"""Provisioning and the queue channel with moto in place of AWS, in this process.

Objects go through obstore, which moto does not intercept; buckets are stores in memory here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from fsd_inference.aws.clients import Clients
from fsd_inference.aws.provision import StackSettings, create_stack, delete_stack
from fsd_inference.channels.base import Expected, Frame, Kind
from fsd_inference.channels.queue import QueueChannel, QueueSettings
from fsd_inference.errors import StackError
from fsd_inference.limits import HIDDEN_MESSAGES
from fsd_inference.stack_description import StackSpec
from fsd_inference.store.memory import MemoryStore
from fsd_inference.usage import UsageMeter
from tests.support.moto_service import MotoService

REGION = "eu-west-1"
EXPECTED = [Expected(Kind.DATA, 0, 0, 0)]


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    """Clients as a machine with credentials has them; every request stays in this process."""
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        made = Clients(region=REGION)
        monkeypatch.setattr(made, "open_bucket", lambda *_, **__: MemoryStore())
        yield made
        made.close()


def existing(clients: Clients) -> tuple[int, int, int, int]:
    """Count topics, subscriptions, queues and buckets."""
    return (
        len(clients.sns.list_topics()["Topics"]),
        len(clients.sns.list_subscriptions()["Subscriptions"]),
        len(clients.sqs.list_queues().get("QueueUrls", [])),
        len(clients.s3.list_buckets()["Buckets"]),
    )


def test_topics_queues_and_subscriptions_are_as_described(clients: Clients) -> None:
    meter, asked = UsageMeter(), []
    clients.sns.meta.events.register(
        "provide-client-params.sns.CreateTopic", lambda params, **_: asked.append(params["Attributes"])
    )
    settings = StackSettings("moto", lanes=2, ranks=3, longest_run_s=600.5)
    stack = create_stack(clients, settings, meter=meter)
    assert existing(clients) == (2, 6, 6, 2)
    assert meter.snapshot().requests == {"s3.manage": 10, "sns.manage": 2 + 6, "sqs.manage": 6}
    assert asked == [{"MaximumMessageSize": str(1 << 20)}] * 2  # moto does not store it
    assert (stack.region, stack.endpoint_url, stack.message_bytes) == (REGION, None, 1 << 20)
    for number, lane in enumerate(stack.lanes):
        (topic,) = lane.topic_arns
        assert topic == f"arn:aws:sns:{REGION}:123456789012:{stack.name}-lane{number}-block0"
        found = clients.sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
        subscriptions = {subscription["Endpoint"]: subscription for subscription in found}
        assert len(subscriptions) == 3
        for rank, url in enumerate(lane.queue_urls):
            name = f"{stack.name}-lane{number}-rank{rank}"
            assert url.endswith(f"/{name}")
            queue = clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            assert queue["QueueArn"] == f"arn:aws:sqs:{REGION}:123456789012:{name}"
            assert queue["MessageRetentionPeriod"] == queue["VisibilityTimeout"] == "901"
            assert queue["MaximumMessageSize"] == str(1 << 20)
            assert queue["SqsManagedSseEnabled"] == "true"
            (allowed,) = json.loads(queue["Policy"])["Statement"]
            assert allowed == {
                "Effect": "Allow",
                "Principal": {"Service": "sns.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": queue["QueueArn"],
                "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
            }
            arn = subscriptions[queue["QueueArn"]]["SubscriptionArn"]
            subscription = clients.sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]
            assert subscription["RawMessageDelivery"] == "true"
            assert subscription["FilterPolicyScope"] == "MessageAttributes"
            assert json.loads(subscription["FilterPolicy"]) == {"to": [str(rank), "all"]}


def test_where_topics_take_no_large_messages_the_stack_has_the_usual_size(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_topic = clients.sns.create_topic

    def refuse_attributes(**request: Any) -> object:
        if "Attributes" in request:
            error = {"Error": {"Code": "InvalidParameter", "Message": "no such attribute"}, "ResponseMetadata": {}}
            raise clients.sns.exceptions.InvalidParameterException(error, "CreateTopic")  # type: ignore[arg-type]
        return create_topic(**request)

    monkeypatch.setattr(clients.sns, "create_topic", refuse_attributes)
    meter = UsageMeter()
    stack = create_stack(clients, StackSettings("moto", ranks=1), meter=meter)
    assert stack.message_bytes == 1 << 18
    assert meter.snapshot().requests["sns.manage"] == 2 + 1
    queue = clients.sqs.get_queue_attributes(QueueUrl=stack.lanes[0].queue_urls[0], AttributeNames=["All"])
    assert queue["Attributes"]["MaximumMessageSize"] == str(1 << 18)


def test_objects_of_runs_expire_and_those_of_networks_stay(clients: Clients) -> None:
    stack = create_stack(clients, StackSettings("moto", ranks=1, run_buckets=2, expire_days=3))
    assert stack.run_buckets == (f"{stack.name}-runs-0", f"{stack.name}-runs-1")
    for bucket in (*stack.run_buckets, stack.network_bucket):
        assert clients.s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] == REGION
        (rule,) = clients.s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        assert rule["Status"] == "Enabled"
        days = 1 if bucket in stack.run_buckets else 7
        assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": days}
        assert rule.get("Expiration") == ({"Days": 3} if bucket in stack.run_buckets else None)
        blocked = clients.s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
        assert len(blocked) == 4
        assert all(blocked.values())
        (encrypted,) = clients.s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        assert encrypted["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
        (denied,) = json.loads(clients.s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
        assert denied["Effect"] == "Deny"
        assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_a_stack_is_deleted_whole_and_no_other_with_it(clients: Clients) -> None:
    kept = create_stack(clients, StackSettings("moto", ranks=2))
    stack = create_stack(clients, StackSettings("moto", lanes=2, ranks=2))
    assert existing(clients) == (3, 6, 6, 4)
    owners = []
    clients.s3.meta.events.register(
        "before-call.s3.DeleteBucket",
        lambda params, **_: owners.append(params["headers"]["x-amz-expected-bucket-owner"]),
    )
    delete_stack(clients, stack)
    assert owners == ["123456789012"] * 2  # the names may be another account's meanwhile
    assert [topic["TopicArn"] for topic in clients.sns.list_topics()["Topics"]] == list(kept.lanes[0].topic_arns)
    assert sorted(clients.sqs.list_queues()["QueueUrls"]) == sorted(kept.lanes[0].queue_urls)
    assert {b["Name"] for b in clients.s3.list_buckets()["Buckets"]} == {*kept.run_buckets, kept.network_bucket}


def test_a_stack_that_cannot_be_made_leaves_nothing(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    subscribe = clients.sns.subscribe

    def refuse_rank_1(**request: Any) -> object:
        if request["Endpoint"].endswith("rank1"):
            error = {"Error": {"Code": "AuthorizationError", "Message": "no"}, "ResponseMetadata": {}}
            raise ClientError(error, "Subscribe")  # type: ignore[arg-type]
        return subscribe(**request)

    monkeypatch.setattr(clients.sns, "subscribe", refuse_rank_1)
    with pytest.raises(StackError, match=r"cannot subscribe queue moto-\w+-lane0-rank1: .*AuthorizationError"):
        create_stack(clients, StackSettings("moto", ranks=3))
    topics, _, queues, buckets = existing(clients)
    assert (topics, queues, buckets) == (0, 0, 0)


@pytest.fixture
def service(clients: Clients) -> Iterator[MotoService]:
    with MotoService(clients.region) as running:
        yield running


def channels(service: MotoService, stack: StackSpec, settings: QueueSettings) -> list[QueueChannel]:
    (lane,) = stack.lanes
    return [
        QueueChannel(
            service.topics,
            service.queues,
            topics=lane.topic_arns,
            queue_url=url,
            workers=stack.ranks,
            settings=settings,
        )
        for url in lane.queue_urls
    ]


def received(channel: QueueChannel) -> list[bytes]:
    bodies: list[bytes] = []
    while came := channel.receive(EXPECTED, 0):
        bodies += came
    return sorted(bodies)


@pytest.mark.parametrize("delete", [False, True])
def test_one_message_reaches_exactly_the_ranks_that_it_names(
    clients: Clients, service: MotoService, delete: bool
) -> None:
    stack = create_stack(clients, StackSettings("moto", ranks=5))
    ranks = channels(service, stack, QueueSettings(most_hidden=0 if delete else HIDDEN_MESSAGES))
    all_bytes = bytes(range(256))
    sent = [
        ((1, 3, 4), b"several"),
        ((2,), all_bytes),
        ((0, 1, 2, 3, 4), b"everyone"),
        *[((4,), b"%d" % i) for i in range(9)],
    ]
    ranks[0].send([Frame(Kind.DATA, 0, 0, targets, body) for targets, body in sent]).result(30)
    ranks[0].abort(Frame(Kind.ABORT, 0, 0, (1, 2, 3, 4), b"abort"))
    for rank, channel in enumerate(ranks):
        assert received(channel) == sorted([b"abort", *(body for targets, body in sent if rank in targets)])
    usage = ranks[0].meter.snapshot()
    assert usage.requests["sns.publish"] == 2 + 1  # 12 messages, at most 10 a batch, and the abort
    assert usage.frames == 13
    left = [
        int(clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"][name])
        for url in stack.lanes[0].queue_urls
        for name in ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
    ]
    assert (sum(left) == 0) is delete
    for channel in ranks:
        channel.close()
