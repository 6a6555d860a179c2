"""The permissions of a stack's parties: lists of requests that must be permitted, and that must be denied.

The emulator wants the permission to set a function's reserved concurrency from whoever reads it, so that the module's
own tests alone (terraform/tests) hold the permission to read it.

Placeholders in arguments name resources of this stack and of another one, as in `names_of`: ``{queue}``,
``{other_queue}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.support.deployed import MEMORY_MB, Deployed

DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError", "403"}
"""Error codes with which the services deny access."""


@dataclass(frozen=True)
class Request:
    """A request of one party.

    Attributes
    ----------
    party : str
        Name of the party; see `tests.support.deployed`.
    service, operation : str
        Service, and method of its boto3 client.
    arguments : dict
        Arguments of the method, with placeholders.
    answer : str
        Error code of a permitted request that fails because the resource does not exist; empty for success.
    """

    party: str
    service: str
    operation: str
    arguments: dict[str, Any]
    answer: str = ""

    def __str__(self) -> str:
        values = " ".join(str(value) for value in self.arguments.values())
        return f"{self.party} {self.service}.{self.operation} {values}"[:90]

    def send(self, deployed: Deployed, names: dict[str, str]) -> Any:
        """Send the request with the party's credentials."""
        client = deployed.client(self.party, self.service)
        return getattr(client, self.operation)(**{key: _filled(value, names) for key, value in self.arguments.items()})


def names_of(deployed: Deployed) -> dict[str, str]:
    """Return the values of the placeholders, and create the resources of the other stack."""
    stack = deployed.stack
    assert stack.functions is not None
    lane = stack.lanes[0]
    other = f"{stack.name}-b"  # has this stack's name as a prefix
    names = {
        "stack": stack.name,
        "runs": stack.run_buckets[0],
        "networks": stack.network_bucket,
        "topic": lane.topic_arns[0],
        "queue": lane.queue_urls[0],
        "failures": stack.functions.failures_queue_url,
        "coordinator": stack.functions.coordinator,
        "worker": stack.functions.workers[0].arn,
        "worker_log": f"/aws/lambda/{stack.name}-worker-{MEMORY_MB}",
        "coordinator_log": f"/aws/lambda/{stack.name}-coordinator",
        "caller_policy": deployed.outputs["caller_policy_arn"],
        "worker_role": deployed.outputs["worker_role_arn"],
        "coordinator_role": deployed.outputs["coordinator_role_arn"],
    }
    names |= {f"other_{key}": names[key].replace(stack.name, other) for key in ("coordinator", "worker")}
    names["other_runs"] = f"{other}-runs-0"
    deployed.client("admin", "s3").create_bucket(Bucket=names["other_runs"])
    made = deployed.client("admin", "sqs").create_queue(QueueName=f"{other}-lane0-rank0")
    names["other_queue"] = made["QueueUrl"]
    names["other_topic"] = deployed.client("admin", "sns").create_topic(Name=f"{other}-lane0-block0")["TopicArn"]
    return names


def _filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        return value.format(**names) if value.startswith("{") and value[1:2].isalpha() else value
    if isinstance(value, list):
        return [_filled(item, names) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, names) for key, item in value.items()}
    return value


def _both(*requests: tuple[str, str, dict[str, Any]] | tuple[str, str, dict[str, Any], str]) -> list[Request]:
    return [Request(party, *request) for party in ("worker", "coordinator") for request in requests]


def _of(party: str, *requests: tuple[str, str, dict[str, Any]] | tuple[str, str, dict[str, Any], str]) -> list[Request]:
    return [Request(party, *request) for request in requests]


_OBJECT = {"Bucket": "{runs}", "Key": "permissions"}
_EVENT = {"InvocationType": "DryRun", "Payload": b"{}"}
_CODE = {"ZipFile": b"other code"}
_TRUST_ALL = '{"Version": "2012-10-17", "Statement": []}'
_LOG = {"logStreamName": "permissions"}
_ABSENT_PLAN = {"Bucket": "{networks}", "Key": "plans/absent"}
_UPLOAD = {"UploadId": "absent"}

PERMITTED: list[Request] = [
    *(
        Request(party, service, operation, arguments, *answer)
        for party in ("worker", "coordinator", "caller")
        for service, operation, arguments, *answer in (
            ("s3", "put_object", {**_OBJECT, "Body": b"x"}),
            ("s3", "get_object", _OBJECT),
            ("s3", "get_object", {"Bucket": "{runs}", "Key": "absent"}, "NoSuchKey"),
            ("s3", "list_objects_v2", {"Bucket": "{runs}"}),
            ("s3", "get_object", {"Bucket": "{networks}", "Key": "stack.json"}),
            ("s3", "get_object", _ABSENT_PLAN, "NoSuchKey"),
            ("s3", "list_objects_v2", {"Bucket": "{networks}"}),
            ("sns", "publish", {"TopicArn": "{topic}", "Message": "for nobody"}),
        )
    ),
    *_of(
        "worker",
        ("sqs", "receive_message", {"QueueUrl": "{queue}"}),
        ("sqs", "delete_message", {"QueueUrl": "{queue}", "ReceiptHandle": "absent"}, "ReceiptHandleIsInvalid"),
    ),
    *_both(
        ("lambda", "invoke", {"FunctionName": "{worker}", **_EVENT}),
        ("sqs", "send_message", {"QueueUrl": "{failures}", "MessageBody": "{}"}),
    ),
    *_of(
        "worker",
        ("logs", "create_log_stream", {"logGroupName": "{worker_log}", **_LOG}),
        (
            "logs",
            "put_log_events",
            {"logGroupName": "{worker_log}", **_LOG, "logEvents": [{"timestamp": 1, "message": "m"}]},
        ),
    ),
    *_of(
        "coordinator",
        ("s3", "delete_object", {"Bucket": "{runs}", "Key": "admission/permissions"}),
        ("s3", "delete_object", {"Bucket": "{runs}", "Key": "runs/permissions/0/coordinator"}),
        ("sqs", "purge_queue", {"QueueUrl": "{queue}"}),
        ("sqs", "receive_message", {"QueueUrl": "{failures}"}),
        ("sqs", "delete_message", {"QueueUrl": "{failures}", "ReceiptHandle": "absent"}, "ReceiptHandleIsInvalid"),
        ("logs", "create_log_stream", {"logGroupName": "{coordinator_log}", **_LOG}),
    ),
    *(
        Request(party, "lambda", operation, arguments)
        for party in ("coordinator", "caller")
        for operation, arguments in (
            ("get_function_configuration", {"FunctionName": "{worker}"}),
            ("get_account_settings", {}),
        )
    ),
    *_of(
        "caller",
        ("lambda", "invoke", {"FunctionName": "{coordinator}", **_EVENT}),
        ("lambda", "get_function_configuration", {"FunctionName": "{coordinator}"}),
        ("s3", "put_object", {"Bucket": "{networks}", "Key": "plans/permissions", "Body": b"x"}),
        ("s3", "get_object", {"Bucket": "{networks}", "Key": "plans/permissions"}),
        ("s3", "put_object", {"Bucket": "{networks}", "Key": "networks/permissions", "Body": b"x"}),
        ("s3", "get_object", {"Bucket": "{networks}", "Key": "networks/permissions"}),
        ("s3", "create_multipart_upload", {"Bucket": "{networks}", "Key": "plans/permissions"}),
        ("s3", "list_multipart_uploads", {"Bucket": "{networks}"}),
        ("s3", "list_parts", {**_ABSENT_PLAN, **_UPLOAD}, "NoSuchUpload"),
        ("s3", "abort_multipart_upload", {**_ABSENT_PLAN, **_UPLOAD}, "NoSuchUpload"),
        ("s3", "delete_object", _OBJECT),
        ("sns", "get_topic_attributes", {"TopicArn": "{topic}"}),
        ("sqs", "get_queue_attributes", {"QueueUrl": "{queue}", "AttributeNames": ["All"]}),
        ("sqs", "receive_message", {"QueueUrl": "{queue}"}),
        ("sqs", "delete_message", {"QueueUrl": "{queue}", "ReceiptHandle": "absent"}, "ReceiptHandleIsInvalid"),
        ("sqs", "purge_queue", {"QueueUrl": "{queue}"}),
    ),
]

_REFUSED_TO_ALL: tuple[tuple[str, str, dict[str, Any]], ...] = (
    # resources of another stack
    ("s3", "get_object", {"Bucket": "{other_runs}", "Key": "x"}),
    ("s3", "put_object", {"Bucket": "{other_runs}", "Key": "x", "Body": b""}),
    ("s3", "list_objects_v2", {"Bucket": "{other_runs}"}),
    ("sqs", "receive_message", {"QueueUrl": "{other_queue}"}),
    ("sqs", "purge_queue", {"QueueUrl": "{other_queue}"}),
    ("sns", "publish", {"TopicArn": "{other_topic}", "Message": "x"}),
    ("lambda", "invoke", {"FunctionName": "{other_worker}", **_EVENT}),
    ("lambda", "invoke", {"FunctionName": "{other_coordinator}", **_EVENT}),
    # operations reserved for the administrator
    ("s3", "delete_bucket", {"Bucket": "{runs}"}),
    ("s3", "delete_bucket", {"Bucket": "{networks}"}),
    ("s3", "put_bucket_policy", {"Bucket": "{runs}", "Policy": _TRUST_ALL}),
    ("s3", "delete_bucket_policy", {"Bucket": "{networks}"}),
    ("s3", "put_object", {"Bucket": "{networks}", "Key": "stack.json", "Body": b"{}"}),
    ("s3", "put_object", {"Bucket": "{networks}", "Key": "packages/code.zip", "Body": b""}),
    ("s3", "delete_object", {"Bucket": "{networks}", "Key": "plans/permissions"}),
    ("s3", "list_buckets", {}),
    ("sqs", "delete_queue", {"QueueUrl": "{queue}"}),
    ("sqs", "set_queue_attributes", {"QueueUrl": "{queue}", "Attributes": {"VisibilityTimeout": "1"}}),
    ("sqs", "send_message", {"QueueUrl": "{queue}", "MessageBody": "past the topic"}),
    ("sqs", "change_message_visibility", {"QueueUrl": "{failures}", "ReceiptHandle": "absent", "VisibilityTimeout": 0}),
    ("sqs", "purge_queue", {"QueueUrl": "{failures}"}),
    ("sqs", "delete_queue", {"QueueUrl": "{failures}"}),
    ("sqs", "create_queue", {"QueueName": "{stack}-lane9-rank9"}),
    ("sns", "delete_topic", {"TopicArn": "{topic}"}),
    ("sns", "subscribe", {"TopicArn": "{topic}", "Protocol": "https", "Endpoint": "https://127.0.0.1:1/"}),
    ("sns", "set_topic_attributes", {"TopicArn": "{topic}", "AttributeName": "DisplayName", "AttributeValue": "x"}),
    ("lambda", "update_function_code", {"FunctionName": "{worker}", **_CODE}),
    ("lambda", "update_function_code", {"FunctionName": "{coordinator}", **_CODE}),
    ("lambda", "update_function_configuration", {"FunctionName": "{worker}", "Timeout": 1}),
    ("lambda", "get_function", {"FunctionName": "{worker}"}),  # its response contains a download URL of the code
    ("lambda", "delete_function", {"FunctionName": "{worker}"}),
    ("lambda", "put_function_concurrency", {"FunctionName": "{worker}", "ReservedConcurrentExecutions": 0}),
    ("iam", "get_role", {"RoleName": "{stack}-worker"}),
    ("iam", "put_role_policy", {"RoleName": "{stack}-worker", "PolicyName": "x", "PolicyDocument": _TRUST_ALL}),
    ("iam", "attach_role_policy", {"RoleName": "{stack}-worker", "PolicyArn": "{caller_policy}"}),
    ("iam", "create_access_key", {"UserName": "caller"}),
    ("iam", "create_user", {"UserName": "mallory"}),
    ("sts", "assume_role", {"RoleArn": "{worker_role}", "RoleSessionName": "mallory"}),
    ("sts", "assume_role", {"RoleArn": "{coordinator_role}", "RoleSessionName": "mallory"}),
    ("logs", "create_log_group", {"logGroupName": "/aws/lambda/x"}),
    ("logs", "delete_log_group", {"logGroupName": "{worker_log}"}),
)

REFUSED: list[Request] = [
    *(Request(party, *request) for party in ("worker", "coordinator", "caller") for request in _REFUSED_TO_ALL),
    *_both(
        ("s3", "put_object", {**_ABSENT_PLAN, "Body": b""}),
        ("s3", "get_object", {"Bucket": "{networks}", "Key": "packages/code.zip"}),
        ("lambda", "invoke", {"FunctionName": "{coordinator}", **_EVENT}),
        ("s3", "delete_object", _OBJECT),
        ("s3", "get_object", {"Bucket": "{networks}", "Key": "networks/permissions"}),
        ("s3", "list_multipart_uploads", {"Bucket": "{networks}"}),
        ("s3", "abort_multipart_upload", {**_ABSENT_PLAN, **_UPLOAD}),
    ),
    *_of(
        "worker",
        ("lambda", "get_function_configuration", {"FunctionName": "{worker}"}),
        ("lambda", "get_function_concurrency", {"FunctionName": "{worker}"}),
        ("s3", "delete_object", {"Bucket": "{runs}", "Key": "admission/permissions"}),
        ("sqs", "purge_queue", {"QueueUrl": "{queue}"}),
        ("sqs", "receive_message", {"QueueUrl": "{failures}"}),
        ("logs", "create_log_stream", {"logGroupName": "{coordinator_log}", **_LOG}),
    ),
    *_of(
        "coordinator",
        ("sqs", "receive_message", {"QueueUrl": "{queue}"}),
        ("sqs", "delete_message", {"QueueUrl": "{queue}", "ReceiptHandle": "absent"}),
        ("logs", "create_log_stream", {"logGroupName": "{worker_log}", **_LOG}),
    ),
    *_of(
        "caller",
        ("lambda", "invoke", {"FunctionName": "{worker}", **_EVENT}),
        ("sqs", "receive_message", {"QueueUrl": "{failures}"}),
        ("sqs", "send_message", {"QueueUrl": "{failures}", "MessageBody": "{}"}),
        ("logs", "create_log_stream", {"logGroupName": "{worker_log}", **_LOG}),
    ),
]
