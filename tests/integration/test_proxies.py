"""Which requests go through a proxy that the environment names, counted at the proxy, for all three HTTP clients."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from fsd_inference.aws.clients import Clients
from fsd_inference.config import RetrySettings
from fsd_inference.endpoints import proxy_of
from fsd_inference.errors import SettingError

NAMES = [name for base in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for name in (base, base.lower())]
LOOPBACK = ("127.0.0.1", "127.1.2.3", "[::1]", "localhost")


class Server:
    """Counts connections, and refuses what they ask for."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host.strip("[]").replace("localhost", "127.0.0.1"), 0), family=family)
        self.place = f"{host}:{self._socket.getsockname()[1]}"
        self.asked = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._socket.accept()
                self.asked += 1
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 400 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def proxy() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def environment(aws_configuration: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().endswith("_PROXY"):
            aws_configuration.delenv(name)
    aws_configuration.setenv("AWS_ACCESS_KEY_ID", "id")
    aws_configuration.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def by_boto3(clients: Clients) -> None:
    clients.sqs.list_queues()


def by_obstore(clients: Clients) -> None:
    clients.open_bucket("bucket", retry=RetrySettings(attempts=1)).get("key")


def by_the_message_client(clients: Clients) -> None:
    clients.queues.receive("https://sqs.example/queue", 1, 0)


CLIENTS = [by_boto3, by_obstore, by_the_message_client]


def ask(call: Callable[[Clients], None], endpoint_url: str | None) -> None:
    clients = Clients(endpoint_url, "us-east-1")
    with pytest.raises(Exception, match=r"."):  # what is asked never answers as the service does
        call(clients)
    clients.close()


@pytest.mark.parametrize("call", CLIENTS)
@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_is_never_reached_through_a_proxy(
    call: Callable[[Clients], None], host: str, proxy: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, f"http://{proxy.place}")
    service = Server(host)
    ask(call, f"http://{service.place}")
    service.close()
    assert (proxy.asked, service.asked) == (0, 1)


@pytest.mark.parametrize("call", CLIENTS)
@pytest.mark.parametrize(
    ("endpoint_url", "name"),
    [
        *[("http://services.invalid:4566", name) for name in NAMES if "HTTPS" not in name.upper()],
        *[(None, name) for name in NAMES if "HTTP_" not in name.upper()],
    ],
)
def test_other_endpoints_are_reached_through_the_proxy_of_their_scheme_or_of_all(
    call: Callable[[Clients], None],
    endpoint_url: str | None,
    name: str,
    proxy: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, f"http://{proxy.place}")
    ask(call, endpoint_url)
    assert proxy.asked == 1


@pytest.mark.parametrize("call", CLIENTS)
@pytest.mark.parametrize("exempt", ["services.invalid", ".invalid", "*", "other,services.invalid:4566"])
def test_what_is_exempt_is_reached_directly(
    call: Callable[[Clients], None], exempt: str, proxy: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.place}")
    monkeypatch.setenv("no_proxy", exempt)
    ask(call, "http://services.invalid:4566")
    assert proxy.asked == 0


def test_a_proxy_by_host_and_port_is_one_for_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "proxy.example:3128")
    assert proxy_of("http://services.example") == "http://proxy.example:3128"
    assert proxy_of("https://services.example") is None


@pytest.mark.parametrize("call", CLIENTS)
def test_another_kind_of_proxy_is_a_setting_to_correct(
    call: Callable[[Clients], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:secret@proxy.example:1080")
    clients = Clients("http://services.invalid", "us-east-1")
    with pytest.raises(
        SettingError, match="cannot go through a proxy by socks5: set HTTP_PROXY or ALL_PROXY"
    ) as caught:
        call(clients)
    assert "secret" not in str(caught.value)
    clients.close()
