"""The module applied to the emulator: the same resources as `fsd stack up`, an empty second plan, a complete destroy.

The tests are the steps of one scenario on one stack and run in this order, because the provider waits long for queues
and buckets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from mypy_boto3_s3 import S3Client

from fsd_inference.aws.clients import Clients
from fsd_inference.aws.emulator import running_emulator
from fsd_inference.aws.provision import StackSettings, bucket_policy, create_stack
from fsd_inference.aws.stack import parse_stack
from fsd_inference.stack_description import StackSpec
from tests.support.terraform import Deployment

pytestmark = [pytest.mark.terraform, pytest.mark.deploys, pytest.mark.emulator, pytest.mark.timeout(900)]

SETTINGS = StackSettings("one", lanes=1, ranks=3, run_buckets=2, longest_run_s=600, purge_settle_s=0, expire_days=3)
TIMES_OF_DAY = {"CreatedTimestamp", "LastModifiedTimestamp"}
REPOSITORY = "123456789012.dkr.ecr.us-east-1.amazonaws.com/one"


@pytest.fixture(scope="module")
def up() -> Iterator[tuple[StackSpec, Clients]]:
    """A stack as `fsd stack up` makes it, on an emulator of its own."""
    with running_emulator() as emulator:
        clients = Clients(emulator.endpoint_url)
        yield create_stack(clients, SETTINGS), clients
        clients.close()


@pytest.fixture(scope="module")
def variables(up: tuple[StackSpec, Clients]) -> dict[str, Any]:
    return {
        "name": up[0].name,
        "lanes": SETTINGS.lanes,
        "ranks": SETTINGS.ranks,
        "run_buckets": SETTINGS.run_buckets,
        "longest_run_s": SETTINGS.longest_run_s,
        "timeout_s": 600,
        "expire_days": SETTINGS.expire_days,
        "memory_sizes": [1024, 512],
    }


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, variables: dict[str, Any]) -> Iterator[Deployment]:
    """The same stack as Terraform makes it, on another emulator, which is gone afterwards with all it holds."""
    with running_emulator() as emulator:
        made = Deployment(tmp_path_factory.mktemp("deployment"), emulator.endpoint_url)
        made.apply(**variables)
        yield made


@pytest.fixture(scope="module")
def clients(deployment: Deployment) -> Iterator[Clients]:
    made = Clients(deployment.endpoint_url)
    yield made
    made.close()


def topics(clients: Clients) -> dict[str, Any]:
    arns = [topic["TopicArn"] for topic in clients.sns.list_topics()["Topics"]]
    return {
        arn: {
            name: value
            for name, value in clients.sns.get_topic_attributes(TopicArn=arn)["Attributes"].items()
            if (name.endswith("FeedbackSampleRate"), value) != (True, "0")  # the provider writes this default down
        }
        for arn in arns
    }


def subscriptions(clients: Clients) -> dict[str, Any]:
    found = {}
    for subscription in clients.sns.list_subscriptions()["Subscriptions"]:
        arn = subscription["SubscriptionArn"]
        attributes = dict(clients.sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"])
        assert attributes.pop("SubscriptionArn") == arn  # its end is random
        attributes["FilterPolicy"] = json.loads(attributes["FilterPolicy"])
        found[subscription["Endpoint"]] = attributes
    return found


def queues(clients: Clients) -> dict[str, Any]:
    found = {}
    for url in clients.sqs.list_queues()["QueueUrls"]:
        answer: Any = clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        attributes = answer["Attributes"]
        if "Policy" in attributes:
            attributes["Policy"] = json.loads(attributes["Policy"])
        found[url.rpartition("/")[2]] = {k: v for k, v in attributes.items() if k not in TIMES_OF_DAY}
    return found


def buckets(clients: Clients) -> dict[str, Any]:
    s3 = clients.s3
    return {
        name: {
            "lifecycle": s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"],
            "public": s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"],
            "encryption": s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"],
            "policy": policy_of(s3, name),
        }
        for name in (bucket["Name"] for bucket in s3.list_buckets()["Buckets"])
    }


def policy_of(s3: S3Client, name: str) -> Any:
    """Return a bucket's policy, None if it has none."""
    try:
        return json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucketPolicy":
            raise
        return None


def test_terraform_makes_what_stack_up_makes(
    up: tuple[StackSpec, Clients], deployment: Deployment, clients: Clients
) -> None:
    stack, emulated = up
    assert len(topics(emulated)) == 1
    assert len(subscriptions(emulated)) == 3
    assert len(buckets(emulated)) == 3
    assert topics(clients) == topics(emulated)
    assert subscriptions(clients) == subscriptions(emulated)
    made = queues(clients)
    assert made.pop(f"{stack.name}-failures")  # only functions need it
    assert made == queues(emulated)
    over_http = buckets(emulated)  # where `fsd stack up` makes no policy, since it would keep everyone out
    assert {settings["policy"] for settings in over_http.values()} == {None}
    assert buckets(clients) == {
        name: {**settings, "policy": bucket_policy(f"arn:aws:s3:::{name}")} for name, settings in over_http.items()
    }

    described = parse_stack(json.loads(deployment.outputs["stack_json"].replace(clients.endpoint_url, "http://same")))
    lanes = [
        replace(lane, queue_urls=tuple(url.replace(str(stack.endpoint_url), "http://same") for url in lane.queue_urls))
        for lane in stack.lanes
    ]
    assert described == replace(stack, endpoint_url="http://same", lanes=tuple(lanes))
    lies = clients.s3.get_object(Bucket=stack.network_bucket, Key="stack.json")["Body"].read()
    assert lies.decode() == deployment.outputs["stack_json"]


def statements(document: Any) -> set[tuple[str, str]]:
    """Return the (action, resource) pairs that a policy allows; those of S3 only for buckets of this account."""
    for entry in document["Statement"]:
        assert entry["Effect"] == "Allow"
        of_s3 = any(action.startswith("s3:") for action in entry["Action"])
        assert set(entry) == {"Sid", "Effect", "Action", "Resource"} | ({"Condition"} if of_s3 else set())
        assert list(entry.get("Condition", {}).values()) == [{"aws:ResourceAccount": "000000000000"}] * of_s3
    return {
        (action, resource)
        for entry in document["Statement"]
        for action in entry["Action"]
        for resource in entry["Resource"]
    }


def pairs(*allowed: tuple[str, list[str]]) -> set[tuple[str, str]]:
    return {
        (action, resource) for actions, resources in allowed for action in actions.split() for resource in resources
    }


def test_each_party_has_the_rights_it_needs_and_no_others(deployment: Deployment) -> None:
    name = deployment.outputs["coordinator_role_arn"].rpartition("/")[2].removesuffix("-coordinator")
    iam = client(deployment, "iam")
    account = "us-east-1:000000000000"
    plans, networks = [f"arn:aws:s3:::{name}-networks/plans/*"], [f"arn:aws:s3:::{name}-networks"]
    description = [f"arn:aws:s3:::{name}-networks/stack.json"]
    runs = [f"arn:aws:s3:::{name}-runs-?"]
    queue, topic = [f"arn:aws:sqs:{account}:{name}-lane*-rank*"], [f"arn:aws:sns:{account}:{name}-lane*-block*"]
    failures = [f"arn:aws:sqs:{account}:{name}-failures"]
    coordinator = [f"arn:aws:lambda:{account}:function:{name}-coordinator{end}" for end in ("", ":*")]
    workers = [
        f"arn:aws:lambda:{account}:function:{name}-worker-{digits}{end}"
        for digits in ("???", "????")
        for end in ("", ":*")
    ]
    logs = f"arn:aws:logs:{account}:log-group:/aws/lambda/{name}"

    of_runs = pairs(
        ("s3:GetObject s3:PutObject", [f"{arn}/*" for arn in runs]),
        ("s3:ListBucket", runs + networks),
        ("s3:GetObject", plans + description),
        ("sns:Publish", topic),
    )
    look = pairs(
        ("lambda:GetFunctionConfiguration lambda:GetFunctionConcurrency", workers),
        ("lambda:GetAccountSettings", ["*"]),
    )
    functions = of_runs | pairs(
        ("lambda:InvokeFunction", workers),
        ("sqs:SendMessage", failures),
    )
    expected = {
        "worker": functions
        | pairs(
            ("sqs:ReceiveMessage sqs:DeleteMessage", queue),
            ("logs:CreateLogStream logs:PutLogEvents", [f"{logs}-worker-{digits}:*" for digits in ("???", "????")]),
        ),
        "coordinator": functions
        | look
        | pairs(
            ("s3:DeleteObject", [f"{arn}/{keys}" for arn in runs for keys in ("admission/*", "runs/*/coordinator")]),
            ("sqs:PurgeQueue", queue),
            ("sqs:ReceiveMessage sqs:DeleteMessage", failures),
            ("logs:CreateLogStream logs:PutLogEvents", [f"{logs}-coordinator:*"]),
        ),
    }
    for party, rights in expected.items():
        (only,) = iam.list_role_policies(RoleName=f"{name}-{party}")["PolicyNames"]
        assert iam.list_attached_role_policies(RoleName=f"{name}-{party}")["AttachedPolicies"] == []
        document = iam.get_role_policy(RoleName=f"{name}-{party}", PolicyName=only)["PolicyDocument"]
        assert statements(document) == rights
    arn = deployment.outputs["caller_policy_arn"]
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    assert statements(document) == of_runs | look | pairs(
        ("s3:GetObject s3:PutObject", [*plans, f"arn:aws:s3:::{name}-networks/networks/*"]),
        ("s3:ListMultipartUploadParts s3:AbortMultipartUpload", plans),
        ("s3:ListBucketMultipartUploads", networks),
        ("s3:DeleteObject", [f"{arn}/*" for arn in runs]),
        ("lambda:InvokeFunction", coordinator),
        ("lambda:GetFunctionConfiguration", coordinator),
        ("sns:GetTopicAttributes", topic),
        ("sqs:GetQueueAttributes sqs:ReceiveMessage sqs:DeleteMessage sqs:PurgeQueue", queue),
    )


def test_functions_come_with_the_image_and_change_with_it(deployment: Deployment, variables: dict[str, Any]) -> None:
    images = [f"{REPOSITORY}@sha256:{digit * 64}" for digit in "ab"]
    functions = client(deployment, "lambda")

    def image() -> str:
        code = functions.get_function(FunctionName=f"{variables['name']}-worker-512")["Code"]
        return str(code["ImageUri"])

    deployment.apply(**variables, image_uri=images[0], alarms=True, dashboard=True, tags={"team": "graphs"})
    assert image() == images[0]
    stack = parse_stack(json.loads(deployment.outputs["stack_json"]))
    assert stack.functions is not None
    assert stack.functions.coordinator == deployment.outputs["coordinator_arn"]
    workers = {str(worker.memory_mb): worker.arn for worker in stack.functions.workers}
    assert workers == deployment.outputs["worker_arns"]
    for worker in stack.functions.workers:
        made = functions.get_function_configuration(FunctionName=worker.arn)
        assert (made["MemorySize"], made["Timeout"]) == (worker.memory_mb, stack.functions.timeout_s)
        assert made["Environment"]["Variables"] == {
            "FSD_STACK_BUCKET": stack.network_bucket,
            "AWS_ENDPOINT_URL": deployment.endpoint_url,
        }
        events = functions.get_function_event_invoke_config(FunctionName=worker.arn)
        assert (events["MaximumRetryAttempts"], events["MaximumEventAgeInSeconds"]) == (0, 60)
        assert events["DestinationConfig"]["OnFailure"]["Destination"] == deployment.outputs["failures_queue_arn"]

    # A clean plan, with one waiver: the emulator does not tell all that it was told of an alarm.
    assert {change["type"] for change in deployment.changes()} <= {"aws_cloudwatch_metric_alarm"}

    deployment.apply(**variables, image_uri=images[1])
    assert image() == images[1]


def test_destroying_leaves_nothing(deployment: Deployment, clients: Clients, variables: dict[str, Any]) -> None:
    name = variables["name"]
    clients.s3.put_object(Bucket=f"{name}-runs-0", Key="left", Body=b"behind")
    deployment.destroy()
    left = [
        clients.sns.list_topics()["Topics"],
        clients.sns.list_subscriptions()["Subscriptions"],
        clients.sqs.list_queues().get("QueueUrls", []),
        clients.s3.list_buckets()["Buckets"],
        client(deployment, "lambda").list_functions()["Functions"],
        client(deployment, "iam").list_policies(Scope="Local")["Policies"],
        client(deployment, "ecr").describe_repositories()["repositories"],
        client(deployment, "logs").describe_log_groups()["logGroups"],
        client(deployment, "cloudwatch").describe_alarms()["MetricAlarms"],
        client(deployment, "cloudwatch").list_dashboards()["DashboardEntries"],
        client(deployment, "kms").list_keys()["Keys"],
        [role for role in client(deployment, "iam").list_roles()["Roles"] if role["RoleName"].startswith(name)],
    ]
    assert [found for found in left if found] == []


def client(deployment: Deployment, service: str) -> Any:
    return boto3.client(
        service,  # type: ignore[call-overload]
        endpoint_url=deployment.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
