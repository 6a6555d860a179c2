"""An emulator that accepts only TLS and enforces IAM, and stores that trust the same certificates as the AWS SDKs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from fsd_inference.aws.clients import Clients
from fsd_inference.aws.emulator import certificate_path, start_emulator, stop_emulator
from fsd_inference.channels.base import Expected, Frame, Kind
from fsd_inference.channels.queue import QueueSettings
from fsd_inference.config import RetrySettings
from fsd_inference.errors import SettingError, StoreError
from fsd_inference.services import NoAnswerError, RefusedError
from fsd_inference.stack_description import EmulatorInfo
from fsd_inference.store.bucket import Credentials
from fsd_inference.store.s3 import S3Store
from tests.support.lane import Lane

pytestmark = pytest.mark.emulator

BUCKET = "strict-bucket"


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorInfo]:
    info = start_emulator(tied=True, strict=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_CA_BUNDLE", str(certificate_path(info)))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        clients = Clients(info.endpoint_url)
        clients.s3.create_bucket(Bucket=BUCKET)
        clients.close()
        yield info
    stop_emulator(info)


def put_and_get(endpoint_url: str, ca_bundle: Path | None) -> None:
    store = S3Store(
        BUCKET,
        endpoint_url=endpoint_url,
        region="us-east-1",
        credentials=Credentials("test", "test"),
        ca_bundle=None if ca_bundle is None else str(ca_bundle),
        retry=RetrySettings(attempts=1),
    )
    try:
        store.put("key", b"data")
        assert store.get("key") == b"data"
    finally:
        store.close()


def test_stores_trust_the_certificates_that_the_environment_names(
    emulator: EmulatorInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_and_get(emulator.endpoint_url, None)
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with pytest.raises(StoreError, match="cannot put key"):
        put_and_get(emulator.endpoint_url, None)
    put_and_get(emulator.endpoint_url, certificate_path(emulator))


def test_stores_trust_the_certificates_of_the_profile(
    emulator: EmulatorInfo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")
    config = tmp_path / "config"
    config.write_text(f"[default]\nregion = us-east-1\nca_bundle = {certificate_path(emulator)}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    clients = Clients(emulator.endpoint_url)
    store = clients.open_bucket(BUCKET)
    try:
        store.put("other", b"data")
        assert [entry["Key"] for entry in clients.s3.list_objects_v2(Bucket=BUCKET, Prefix="other")["Contents"]]
    finally:
        store.close()
        clients.close()


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_certificates_that_are_none(content: bytes | None, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)
    with pytest.raises(SettingError, match="AWS_CA_BUNDLE"):
        put_and_get("https://127.0.0.1:1", bundle)


def test_messages_travel_over_tls_with_the_same_certificates(
    emulator: EmulatorInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = Clients(emulator.endpoint_url)
    once = QueueSettings(retry=RetrySettings(attempts=1))
    channel = Lane.make(clients, 1).channel(clients, 0, once)
    channel.send([Frame(Kind.DATA, 0, 0, (0,), b"frame")]).result(60)  # no policy lets the topic pass it on
    clients.sqs.send_message(QueueUrl=channel._queue_url, MessageBody="AAAA")
    assert channel.receive([Expected(Kind.DATA, 0, 0, 0)], 10) == [bytes(3)]
    monkeypatch.delenv("AWS_CA_BUNDLE")
    untrusting = Clients(emulator.endpoint_url, "us-east-1")
    with pytest.raises(NoAnswerError, match="certificate"):
        untrusting.queues.receive(channel._queue_url, 1, 0)
    for opened in (channel, untrusting, clients):
        opened.close()


def test_policies_are_enforced(emulator: EmulatorInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.environ["AWS_ACCESS_KEY_ID"] == "test"  # the account's root, which made the bucket
    admin = boto3.client("iam", endpoint_url=emulator.endpoint_url, region_name="us-east-1")
    admin.create_user(UserName="nobody")
    key = admin.create_access_key(UserName="nobody")["AccessKey"]
    nobody = boto3.client(
        "s3",
        endpoint_url=emulator.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )
    with pytest.raises(ClientError, match="AccessDenied"):
        nobody.list_objects_v2(Bucket=BUCKET)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    clients = Clients(emulator.endpoint_url, "us-east-1")
    with pytest.raises(RefusedError, match="403 AccessDenied"):
        clients.queues.receive(f"{emulator.endpoint_url}/000000000000/none", 1, 0)
    clients.close()
