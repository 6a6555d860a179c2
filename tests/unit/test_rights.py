"""The rights of a stack's parties are those that the code uses: each action, beside the call that needs it.

`terraform test` compares the policies with the lists in terraform/tests/stack.tftest.hcl; those are compared here.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fsd_inference
from tests.support.terraform import MODULE

PACKAGE = Path(fsd_inference.__file__).parent

BY_AWS = ("", "")
"""Rights that no code of ours uses: Lambda and S3 do, in the role's name."""
PUBLISHES = ("channels/queue.py", "self._topic_client.publish(")
READS, WRITES = ("store/s3.py", "obstore.get("), ("store/s3.py", "obstore.put(")
ABSENT = ("store/s3.py", "expected={404}")  # S3 answers 404 only to who may list
OF_ALL = {
    "kms:Decrypt": BY_AWS,
    "kms:GenerateDataKey": BY_AWS,
    "s3:GetObject": READS,
    "s3:PutObject": WRITES,
    "s3:ListBucket": ABSENT,
    "sns:Publish": PUBLISHES,
}
OF_FUNCTIONS = OF_ALL | {
    "lambda:InvokeFunction": ("aws/launcher.py", ".invoke("),
    "logs:CreateLogStream": BY_AWS,
    "logs:PutLogEvents": BY_AWS,
    "sqs:SendMessage": BY_AWS,  # the record of a failed invocation
}
LOOKS = {
    "lambda:GetAccountSettings": ("aws/concurrency.py", ".get_account_settings"),
    "lambda:GetFunctionConcurrency": ("aws/concurrency.py", ".get_function_concurrency"),
    "lambda:GetFunctionConfiguration": ("aws/waking.py", ".get_function_configuration"),
}
USES = {
    "worker": OF_FUNCTIONS
    | {
        "sqs:ReceiveMessage": ("channels/queue.py", "self._queue_client.receive("),
        "sqs:DeleteMessage": ("channels/queue.py", "self._queue_client.delete("),
    },
    "coordinator": OF_FUNCTIONS
    | LOOKS
    | {
        "s3:DeleteObject": ("aws/admission.py", "self._store.delete("),
        "sqs:ReceiveMessage": ("aws/failures.py", ".receive_message("),
        "sqs:DeleteMessage": ("aws/failures.py", ".delete_message("),
        "sqs:PurgeQueue": ("aws/lanes.py", ".purge_queue("),
    },
    "caller": OF_ALL
    | LOOKS
    | {
        "lambda:InvokeFunction": ("aws/lambda_executor.py", ".invoke("),
        "s3:AbortMultipartUpload": ("aws/bucket.py", ".abort_multipart_upload("),
        "s3:DeleteObject": ("aws/lambda_executor.py", "self._runs[0].delete("),
        "s3:ListBucketMultipartUploads": ("aws/bucket.py", ".list_multipart_uploads("),
        "s3:ListMultipartUploadParts": ("aws/bucket.py", ".list_parts("),
        "sns:GetTopicAttributes": ("aws/check.py", ".get_topic_attributes("),
        "sqs:GetQueueAttributes": ("aws/check.py", ".get_queue_attributes("),
        "sqs:PurgeQueue": ("aws/lanes.py", ".purge_queue("),
        "sqs:DeleteMessage": ("channels/queue.py", "self._queue_client.delete("),
        "sqs:ReceiveMessage": ("aws/probe.py", ".receive_message("),
    },
}


@pytest.mark.parametrize("party", USES)
def test_each_right_has_a_use_and_each_use_a_right(party: str) -> None:
    tests = (MODULE / "tests" / "stack.tftest.hcl").read_text()
    found = re.search(
        rf"aws_iam_(?:role_)?policy\.{party}\.policy\)\.Statement : statement\.Action\]\)\)\) == tolist\(\[(.*?)\]\)",
        tests,
        re.DOTALL,
    )
    assert found is not None
    assert re.findall(r'"(.*?)"', found[1]) == sorted(USES[party])
    for action, (file, call) in USES[party].items():
        assert call in (PACKAGE / file).read_text() if file else True, f"{action}: {file} has no {call}"


def test_workers_delete_no_objects() -> None:
    """They have no right to."""
    for folder in ("aws/handlers", "engine"):
        for path in (PACKAGE / folder).rglob("*.py"):
            assert ".delete(" not in path.read_text(), path
