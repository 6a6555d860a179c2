#!/usr/bin/env bash
# moto 5.2.5: UpdateFunctionConfiguration drops EphemeralStorage, and PublishVersion makes a version where nothing changed.
#
# Lambda keeps the /tmp that an update asks for, and returns the version that exists if code and configuration are as they
# were when it was published. moto takes the memory of the update, leaves /tmp as it was created, and counts up.
#
# Seen: what is printed. Fails if either changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "moto[iam]==5.2.5" docker==7.1.0 boto3==1.43.106
cd "$folder"
cat >seen.py <<'PYTHON'
import io
import zipfile

import boto3
from moto import mock_aws

KEYS = {"region_name": "us-east-1", "aws_access_key_id": "any", "aws_secret_access_key": "any"}
archive = io.BytesIO()
with zipfile.ZipFile(archive, "w") as file:
    file.writestr("handler.py", "def handle(event, context):\n    return event\n")
with mock_aws():
    role = boto3.client("iam", **KEYS).create_role(RoleName="role", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    functions = boto3.client("lambda", **KEYS)
    functions.create_function(
        FunctionName="name", Runtime="python3.12", Role=role, Handler="handler.handle",
        Code={"ZipFile": archive.getvalue()}, EphemeralStorage={"Size": 1024},
    )
    print("created with:", functions.get_function_configuration(FunctionName="name")["EphemeralStorage"])
    functions.update_function_configuration(FunctionName="name", EphemeralStorage={"Size": 2048}, MemorySize=512)
    after = functions.get_function_configuration(FunctionName="name")
    print("updated to:", after["EphemeralStorage"], after["MemorySize"])
    print("versions:", *(functions.publish_version(FunctionName="name")["Version"] for _ in range(2)))
PYTHON
venv/bin/python seen.py | tee seen
diff seen - <<'SEEN'
created with: {'Size': 1024}
updated to: {'Size': 1024} 512
versions: 1 2
SEEN
