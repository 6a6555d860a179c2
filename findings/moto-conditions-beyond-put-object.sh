#!/usr/bin/env bash
# moto 5.2.5: the conditions of CopyObject and DeleteObjects are ignored, those of PutObject and DeleteObject are kept.
#
# S3 takes If-None-Match on CopyObject and an ETag for each key of DeleteObjects, and refuses (412 PreconditionFailed,
# for DeleteObjects in the list of errors) where they do not hold. moto overwrites the object, and deletes it. With
# Quiet, S3 lists errors only; moto lists what it deleted, too.
#
# Seen: what is printed. Fails if any of it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "moto[s3]==5.2.5" boto3==1.43.106
cd "$folder"
cat >seen.py <<'PYTHON'
import boto3
from botocore.exceptions import ClientError
from moto import mock_aws

with mock_aws():
    s3 = boto3.client("s3", region_name="us-east-1", aws_access_key_id="any", aws_secret_access_key="any")
    s3.create_bucket(Bucket="bucket")
    for key, body in (("old", b"old"), ("new", b"new"), ("kept", b"kept")):
        s3.put_object(Bucket="bucket", Key=key, Body=body)

    def told(request, **arguments):
        try:
            return request(Bucket="bucket", **arguments)["ResponseMetadata"]["HTTPStatusCode"]
        except ClientError as error:
            return error.response["Error"]["Code"]

    print("PutObject:", told(s3.put_object, Key="old", Body=b"new", IfNoneMatch="*"))
    print("CopyObject:", told(s3.copy_object, Key="old", CopySource="bucket/new", IfNoneMatch="*"))
    print("then old holds:", s3.get_object(Bucket="bucket", Key="old")["Body"].read().decode())
    print("DeleteObject:", told(s3.delete_object, Key="kept", IfMatch='"other"'))
    deleted = s3.delete_objects(Bucket="bucket", Delete={"Quiet": True, "Objects": [{"Key": "kept", "ETag": '"other"'}]})
    print("DeleteObjects:", deleted.get("Deleted"), deleted.get("Errors"))
PYTHON
venv/bin/python seen.py | tee seen
diff seen - <<'SEEN'
PutObject: PreconditionFailed
CopyObject: 200
then old holds: new
DeleteObject: PreconditionFailed
DeleteObjects: [{'Key': 'kept'}] None
SEEN
