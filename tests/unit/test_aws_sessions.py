"""AWS configurations: each mistake is a one-line error, and our own emulator ignores all of them."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, HTTPClientError, UnauthorizedSSOTokenError
from botocore.parsers import ResponseParserError

from fsd_inference.aws import clients
from fsd_inference.aws.clients import Clients
from fsd_inference.config import RetrySettings
from fsd_inference.errors import SettingError, StackError
from fsd_inference.stack_description import EmulatorInfo, LaneSpec, StackSpec
from fsd_inference.store.bucket import Credentials
from fsd_inference.usage import UsageMeter

SSO = """
[profile signed-in]
sso_session = us
sso_account_id = 123456789012
sso_role_name = role
region = us-east-1
[sso-session us]
sso_region = us-east-1
sso_start_url = https://example.com/start
"""


def spec_at(endpoint_url: str | None, emulator: EmulatorInfo | None = None) -> StackSpec:
    lane = LaneSpec(("arn:aws:sns:us-east-1:0:topic",), ("http://queue",))
    return StackSpec("stack", endpoint_url, "us-east-1", (lane,), ("runs",), "networks", emulator=emulator)


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Set what a user has: variables, a file of profiles, and no more."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def configure(config: str = "", **variables: str) -> None:
        (tmp_path / ".aws").mkdir(exist_ok=True)
        (tmp_path / ".aws" / "config").write_text(config)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return configure


FAULTS = [
    (
        "no profile",
        "",
        {"AWS_PROFILE": "nobody"},
        r"profile \(nobody\) could not be found: set AWS_PROFILE to a profile",
    ),
    ("no default profile", "", {"AWS_DEFAULT_PROFILE": "nobody"}, "could not be found"),
    ("a sign-in that was never made", SSO, {"AWS_PROFILE": "signed-in"}, "sign in again, or choose other credentials"),
    ("a file that does not parse", "[profile x\nregion", {}, "Unable to parse config file"),
    ("an id alone", "", {"AWS_ACCESS_KEY_ID": "id"}, "set both the key's id and its secret, or neither"),
    (
        "half a pair in a profile",
        "[default]\naws_access_key_id = id\nregion = us-east-1\n",
        {},
        "set both the key's id and its secret",
    ),
    (
        "a program that fails",
        "[default]\ncredential_process = false\nregion = us-east-1\n",
        {},
        "Error when retrieving credentials from custom-process",
    ),
    (
        "a program that is not there",
        "[default]\ncredential_process = /nowhere/keys\nregion = us-east-1\n",
        {},
        "the AWS configuration cannot be used",
    ),
    (
        "profiles that name each other",
        "".join(
            f"[profile {one}]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = {other}\n"
            for one, other in ("ab", "ba")
        ),
        {"AWS_PROFILE": "a"},
        "the AWS configuration cannot be used",
    ),
    ("nothing", "", {}, "no AWS credentials are set"),
    ("no region", "", {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": ""}, "no AWS region"),
    ("no name of a region", "", {"AWS_REGION": "a b"}, "'a b' doesn't match a supported format"),
    (
        "a line break within a token",
        "",
        {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "tok\nen"},
        "the AWS session token contains a character that HTTP headers do not allow",
    ),
    (
        "typographic quotes around a secret",
        "",
        {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "“secret”"},
        "the AWS secret access key contains a character that HTTP headers do not allow",
    ),
]


@pytest.mark.parametrize(("config", "variables", "says"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
@pytest.mark.parametrize("endpoint", [None, "https://objects.example.com"])
def test_a_configuration_that_cannot_be_used(
    configured: Callable[..., None], config: str, variables: dict[str, str], says: str, endpoint: str | None
) -> None:
    configured(config, **({"AWS_REGION": "us-east-1"} | variables))
    with pytest.raises(SettingError, match=says) as caught:
        _ = Clients(endpoint).credentials
    assert "\n" not in str(caught.value)
    assert "“" not in str(caught.value)


@pytest.mark.parametrize(("config", "variables"), [row[1:3] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_an_emulator_of_our_own_reads_none_of_it(
    configured: Callable[..., None], config: str, variables: dict[str, str]
) -> None:
    configured(
        config,
        **(
            {
                "AWS_REGION": "eu-west-1",
                "AWS_DEFAULT_REGION": "eu-west-2",
                "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
                "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:1",
                "AWS_USE_FIPS_ENDPOINT": "true",
                "AWS_USE_DUALSTACK_ENDPOINT": "true",
                "AWS_MAX_ATTEMPTS": "many",
                "AWS_RETRY_MODE": "none such",
                "AWS_CA_BUNDLE": "/nowhere",
                "HTTP_PROXY": "http://127.0.0.1:9",
            }
            | variables
        ),
    )
    emulator = EmulatorInfo("http://127.0.0.1:2", 4, "0" * 32, "/nowhere")
    made = Clients.of_stack(spec_at("http://127.0.0.1:2", emulator=emulator))
    assert made.credentials == Credentials("test", "test")
    assert made.region == "us-east-1"
    for client in (made.sqs, made.sns, made.s3, made.functions):
        assert client.meta.endpoint_url == "http://127.0.0.1:2"
        assert client.meta.config.proxies == {}  # type: ignore[attr-defined]
        assert client.meta.config.retries["total_max_attempts"] == 1  # type: ignore[attr-defined]
    made.close()


def test_a_stack_decides_where_its_services_are(configured: Callable[..., None]) -> None:
    configured(
        "[default]\nendpoint_url = http://127.0.0.1:1\n",
        AWS_ACCESS_KEY_ID="id",
        AWS_SECRET_ACCESS_KEY="secret",
        AWS_REGION="eu-west-1",
        AWS_ENDPOINT_URL="http://127.0.0.1:1",
        AWS_ENDPOINT_URL_SNS="http://127.0.0.1:1",
    )
    made = Clients.of_stack(spec_at(None))
    assert made.sns.meta.endpoint_url == "https://sns.us-east-1.amazonaws.com"
    assert made.functions.meta.endpoint_url == "https://lambda.us-east-1.amazonaws.com"
    made.close()


def test_a_service_of_the_users_by_name(configured: Callable[..., None]) -> None:
    """Over plain http, and its buckets are no hosts of their own."""
    configured(AWS_ACCESS_KEY_ID="id", AWS_SECRET_ACCESS_KEY="secret", AWS_REGION="eu-west-1")
    made = Clients.of_stack(spec_at("http://objects:9000"))
    url = made.s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"})
    assert url.startswith("http://objects:9000/bucket/key?")
    made.open_bucket("bucket").close()
    made.close()


def test_spaces_around_keys_are_dropped(configured: Callable[..., None]) -> None:
    configured(
        AWS_ACCESS_KEY_ID=" id\n",
        AWS_SECRET_ACCESS_KEY="secret\r\n",
        AWS_SESSION_TOKEN="token\n",
        AWS_REGION="eu-west-1\n",
    )
    made = Clients()
    assert made.credentials == Credentials("id", "secret", "token")
    assert made.region == "eu-west-1"
    url = made.s3.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "key"})
    assert "AWSAccessKeyId=id&" in url
    assert "security-token=token&" in url
    made.close()


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (HTTPClientError(error=ValueError("Invalid header value b'AWS4-HMAC-SHA256 Credential=id, Signature=f00'")), 1),
        (HTTPClientError(error=ConnectionResetError("reset")), 3),
        (UnauthorizedSSOTokenError(), 1),
        (ResponseParserError("Unable to parse response"), 3),
        (ClientError({"Error": {"Code": "SlowDown", "Message": "slow"}}, "PutObject"), 3),
    ],
)
def test_what_cannot_be_sent_is_not_sent_again(error: Exception, tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    meter = UsageMeter()

    def call() -> None:
        raise error

    with pytest.raises(StackError) as caught:
        clients.request("sqs.manage", "make a queue", call, meter=meter, retry=RetrySettings(attempts=3))
    assert meter.snapshot().requests == {"sqs.manage": tries}
    assert "f00" not in str(caught.value)
    assert "Credential=" not in str(caught.value)
    assert "cannot make a queue" in traceback.format_exception_only(caught.value)[-1]


def test_keys_are_not_shown() -> None:
    shown = repr(Credentials("id", "not-to-be-seen", "nor-this"))
    assert shown == "Credentials(access_key_id='id')"
