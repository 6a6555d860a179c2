"""Environment variables that obstore reads do not change a store's requests; only its caller's settings count."""

from __future__ import annotations

import ast
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import obstore
import pytest

from fsd_inference.config import RetrySettings
from fsd_inference.errors import SettingError
from fsd_inference.store.bucket import Credentials, open_bucket
from fsd_inference.store.s3 import S3Store

SPELLED_OTHERWISE = ("bucket_name", "endpoint_url", "endpoint_url_s3", "endpoint_url_sts", "token", "new_option")
VALUES = ("true", "http://127.0.0.1:1", "1", "sha256", "aws:kms", "AES256", "multipart", "nonsense")


def option_names() -> list[str]:
    """Return all options of the installed obstore, by its own stubs."""
    stubs = Path(obstore.__file__).parent / "_store"
    names = []
    for file, kind in (("_aws.pyi", "S3Config"), ("_client.pyi", "ClientConfig")):
        for node in ast.parse((stubs / file).read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name == kind:
                fields = [field.target for field in node.body if isinstance(field, ast.AnnAssign)]
                names += [field.id for field in fields if isinstance(field, ast.Name)]
    return names


_LIST = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


class Service(ThreadingHTTPServer):
    """Takes all objects, and remembers how they came."""

    daemon_threads = True

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, list[tuple[str, str]]]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._remember()
        self._answer(b"")

    def do_GET(self) -> None:
        self._remember()
        self._answer(_LIST if "list-type" in self.path else b"value")

    def do_HEAD(self) -> None:
        self._remember()
        self._answer(b"")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._remember()
        self._answer(b"<DeleteResult><Deleted><Key>key</Key></Deleted></DeleteResult>")

    def _remember(self) -> None:
        headers = [(name.lower(), value) for name, value in self.headers.items() if name.lower() != "x-amz-date"]
        headers = [(name, value.partition("Signature=")[0]) for name, value in headers]
        self.server.seen.append((self.command, self.path, sorted(headers)))

    def _answer(self, body: bytes) -> None:
        part = self.headers.get("Range") is not None
        self.send_response(206 if part else 200)
        self.send_header("ETag", '"x"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        if part:
            body = body[:1]
            self.send_header("Content-Range", "bytes 0-0/5")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def put(service: Service) -> tuple[str, str, list[tuple[str, str]]]:
    store = S3Store(
        "bucket", "folder", endpoint_url=service.url, region="eu-west-1", credentials=Credentials("id", "secret")
    )
    store.put("key", b"value")
    store.close()
    return service.seen[-1]


def test_the_options_are_known() -> None:
    assert {"endpoint", "virtual_hosted_style_request", "skip_signature", "proxy_url", "allow_http"} < {*option_names()}


@pytest.mark.parametrize("option", sorted({*option_names(), *SPELLED_OTHERWISE}))
def test_no_option_is_taken_from_the_environment(
    option: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = put(service)
    assert expected[1] == "/bucket/folder/key"
    variable = "AWS_" + option.removeprefix("aws_").upper()
    for value in VALUES:
        monkeypatch.setenv(variable, value)
        assert put(service) == expected, f"{variable}={value}"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_for_loopback(name: str, host: str, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.url = service.url.replace("127.0.0.1", host)
    for variable in (name, name.lower()):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert put(service)[1] == "/bucket/folder/key"


def test_a_directory_bucket_is_refused() -> None:
    with pytest.raises(SettingError, match="b--use1-az4--x-s3 is a directory bucket"):
        S3Store("b--use1-az4--x-s3", region="us-east-1", credentials=Credentials("id", "secret"))


def test_the_owner_of_the_bucket_is_named_and_signed_wherever_obstore_signs_it(service: Service) -> None:
    """obstore does not sign the header in lists, and S3 refuses unsigned headers of its own."""
    store = S3Store(
        "bucket",
        endpoint_url=service.url,
        region="eu-west-1",
        credentials=Credentials("id", "secret"),
        owner="123456789012",
        retry=RetrySettings(attempts=1),
    )
    store.put("key", b"value")
    store.put_if_absent("key", b"value")
    store.get("key")
    store.get_range("key", 0, 1)
    store.stat("key")
    store.delete(["key"])
    list(store.list(""))
    store.close()
    assert len(service.seen) == 7
    for method, path, headers in service.seen:
        named = dict(headers).get("x-amz-expected-bucket-owner")
        signed = dict(headers)["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
        assert named == (None if "list-type" in path else "123456789012"), (method, path)
        assert ("x-amz-expected-bucket-owner" in signed) == (named is not None)


def test_where_a_bucket_of_aws_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The region says it, and no variable does."""
    for name in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    def endpoint(region: str) -> object:
        opened = open_bucket(
            "bucket", endpoint_url=None, region=region, credentials=Credentials("a", "b"), ca_bundle=None, timeout_s=1
        )
        assert opened.config["endpoint"] == dict(opened.config)["endpoint_url_s3"]
        return opened.config["endpoint"]

    assert endpoint("eu-west-1") == "https://s3.eu-west-1.amazonaws.com"
    assert endpoint("cn-north-1") == "https://s3.cn-north-1.amazonaws.com.cn"
