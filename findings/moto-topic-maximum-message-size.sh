#!/usr/bin/env bash
# moto 5.2.5: a topic takes the attribute MaximumMessageSize, does not show it, and refuses messages that it allows.
#
# Since September 2026 SNS takes messages of up to 1 MiB on topics whose MaximumMessageSize says so. moto answers 200 to
# SetTopicAttributes, leaves the attribute out of GetTopicAttributes, and refuses a message of 512 KiB. Its queues, which
# have an attribute of the same name, take it.
#
# Seen: what is printed. Fails if the attribute is shown, refused, or heeded.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "moto[sns,sqs]==5.2.5" boto3==1.43.106
cd "$folder"
cat >seen.py <<'PYTHON'
import boto3
from botocore.exceptions import ClientError
from moto import mock_aws

LARGE = "x" * (512 << 10)
KEYS = {"region_name": "us-east-1", "aws_access_key_id": "any", "aws_secret_access_key": "any"}
with mock_aws():
    sns, sqs = boto3.client("sns", **KEYS), boto3.client("sqs", **KEYS)
    topic = sns.create_topic(Name="topic")["TopicArn"]
    set_ = sns.set_topic_attributes(TopicArn=topic, AttributeName="MaximumMessageSize", AttributeValue="1048576")
    print("set:", set_["ResponseMetadata"]["HTTPStatusCode"])
    print("shown:", sns.get_topic_attributes(TopicArn=topic)["Attributes"].get("MaximumMessageSize"))
    try:
        sns.publish(TopicArn=topic, Message=LARGE)
        print("topic: taken")
    except ClientError as error:
        print("topic:", error.response["Error"]["Code"])
    queue = sqs.create_queue(QueueName="queue", Attributes={"MaximumMessageSize": "1048576"})["QueueUrl"]
    print("queue:", sqs.send_message(QueueUrl=queue, MessageBody=LARGE)["ResponseMetadata"]["HTTPStatusCode"])
PYTHON
venv/bin/python seen.py | tee seen
diff seen - <<'SEEN'
set: 200
shown: None
topic: InvalidParameter
queue: 200
SEEN
