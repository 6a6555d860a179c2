#!/usr/bin/env bash
# botocore 1.43.106: a credential_process that is not there raises FileNotFoundError, no BotoCoreError.
#
# All other faults of a profile's credentials (a program that fails, an expired sign-in, half a key pair) are subclasses
# of botocore.exceptions.BotoCoreError, which is what callers catch. A program that is missing, and one that prints no
# JSON, pass through as errors of the standard library.
#
# Seen: what is printed. Fails if the missing program becomes a BotoCoreError.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check botocore==1.43.106
cd "$folder"
venv/bin/python - <<'PYTHON'
import os

import botocore.session
from botocore.exceptions import BotoCoreError

os.environ |= {"AWS_CONFIG_FILE": "config", "AWS_SHARED_CREDENTIALS_FILE": "none", "AWS_EC2_METADATA_DISABLED": "true"}
for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
    os.environ.pop(name, None)
kinds = {}
for program in ("false", "/nowhere/keys", "echo text"):
    with open("config", "w") as file:
        file.write(f"[default]\ncredential_process = {program}\n")
    try:
        botocore.session.Session().get_credentials()
    except Exception as error:
        kinds[program] = isinstance(error, BotoCoreError)
        print(f"{program}: {type(error).__mro__[0].__name__}, a BotoCoreError: {kinds[program]}")
assert kinds == {"false": True, "/nowhere/keys": False, "echo text": False}, kinds
PYTHON
