#!/usr/bin/env bash
# moto 5.2.5: ListMultipartUploads is not sorted by key, and pays no heed to MaxUploads.
#
# S3 lists unfinished uploads in the order of their keys, MaxUploads at a time, and says where to go on. moto lists all,
# in the order in which they were begun, as one complete page. A search for the uploads of a key that ends at the first
# larger key finds nothing.
#
# Seen: what is printed. Fails if the list becomes sorted or is cut into pages.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "moto[s3]==5.2.5" boto3==1.43.106
cd "$folder"
cat >seen.py <<'PYTHON'
import boto3
from moto import mock_aws

with mock_aws():
    s3 = boto3.client("s3", region_name="us-east-1", aws_access_key_id="any", aws_secret_access_key="any")
    s3.create_bucket(Bucket="bucket")
    for key in ("c", "a", "b"):
        s3.create_multipart_upload(Bucket="bucket", Key=key)
    page = s3.list_multipart_uploads(Bucket="bucket", MaxUploads=2)
    print("listed:", *(upload["Key"] for upload in page["Uploads"]))
    print("more to come:", page["IsTruncated"])
PYTHON
venv/bin/python seen.py | tee seen
diff seen - <<'SEEN'
listed: c a b
more to come: False
SEEN
