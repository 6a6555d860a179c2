"""Endpoints of SNS and SQS for the clients that carry messages, found and configured as boto3 does.

No boto3 client is made for it: that takes tens of milliseconds of processor time for each service.
"""

from __future__ import annotations

import os
from typing import Literal

from botocore.regions import EndpointResolver

from fsd_inference.aws.sessions import AwsSession
from fsd_inference.endpoints import is_plain, proxy_of
from fsd_inference.errors import SettingError
from fsd_inference.services import ServiceEndpoint
from fsd_inference.store.bucket import CredentialSource, read_certificates


def message_endpoint(
    session: AwsSession,
    service: Literal["sns", "sqs"],
    endpoint_url: str | None,
    credentials: CredentialSource,
    *,
    connections: int,
    connect_timeout_s: float,
    answer_timeout_s: float,
) -> ServiceEndpoint:
    """Return how to reach a service: at `endpoint_url`, or where AWS has it in the session's region.

    Parameters
    ----------
    session : AwsSession
        Says the region, whether AWS's FIPS or dual-stack endpoints are wanted, and which certificates to trust.
    service : {"sns", "sqs"}
    endpoint_url : str or None
        Endpoint to use instead of AWS's own.
    credentials : Credentials or callable
        Access keys, or a callable that returns the current ones for each request.
    connections : int
        Number of idle connections to keep.
    connect_timeout_s, answer_timeout_s : float
        Maximum seconds to connect, and to wait for the next bytes of an answer.

    Raises
    ------
    SettingError
        AWS has no such endpoint in the region, or the proxy's URL or the certificates are invalid.
    """
    url = endpoint_url or aws_endpoint(session, service)
    ca_bundle = session.ca_bundle or os.environ.get("REQUESTS_CA_BUNDLE")

    def keys() -> tuple[str, str, str | None]:
        now = credentials() if callable(credentials) else credentials
        return now.access_key_id, now.secret_access_key, now.session_token

    try:
        return ServiceEndpoint(
            url,
            session.region,
            keys,
            proxy=proxy_of(url),
            certificates=read_certificates(ca_bundle) if ca_bundle and not is_plain(url) else b"",
            connections=connections,
            connect_timeout_s=connect_timeout_s,
            answer_timeout_s=answer_timeout_s,
        )
    except ValueError as error:
        raise SettingError(f"cannot reach {service} at {url}: {error}") from error


def aws_endpoint(session: AwsSession, service: str) -> str:
    """Return where AWS has a service in the session's region; raise `SettingError` if nowhere."""
    fips = bool(session.core.get_config_variable("use_fips_endpoint"))
    dual_stack = bool(session.core.get_config_variable("use_dualstack_endpoint"))
    resolver = EndpointResolver(session.core.get_data("endpoints"))
    found = resolver.construct_endpoint(
        service, session.region, use_fips_endpoint=fips, use_dualstack_endpoint=dual_stack
    )
    if found is None and (fips or dual_stack):
        raise SettingError(
            f"AWS has no FIPS or dual-stack endpoint of {service} in region {session.region!r}: do not ask for one, or "
            "choose another region"
        )
    # A region that botocore does not know yet is assumed to be like most.
    host = f"{service}.{session.region}.amazonaws.com" if found is None else found["hostname"]
    return f"https://{host}"
