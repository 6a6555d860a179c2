"""Sessions of the AWS SDK, with the user's configuration or with fixed keys for an emulator that fsd started.

Any error in the configuration (a missing profile, an expired sign-in, an incomplete key pair, a file that does not
parse) is raised as a `SettingError` before any request is sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import boto3
import botocore.session
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError, PartialCredentialsError, ProfileNotFound
from botocore.utils import validate_region_name

from fsd_inference.errors import SettingError
from fsd_inference.store.bucket import Credentials, CredentialSource

T = TypeVar("T")

EMULATOR_REGION = "us-east-1"
_EMULATOR_CREDENTIALS = Credentials("test", "test")
_SIGN_IN = "sign in again, or choose other credentials with AWS_PROFILE or --profile"
_HINTS: dict[type[Exception], str] = {
    ProfileNotFound: "set AWS_PROFILE to a profile of your AWS configuration",
    PartialCredentialsError: "set both the key's id and its secret, or neither",
}


@dataclass(frozen=True, slots=True)
class AwsSession:
    """The configuration from which clients are created.

    Attributes
    ----------
    boto3 : boto3.Session
    core : botocore.session.Session
        The session below `boto3`, which reads the configuration.
    region : str
    credentials : Credentials or callable, or None
        Access keys, or a callable that returns the current ones; None if the user has none.
    ca_bundle : str or None
        PEM file of certificates to trust in addition to the system's.
    """

    boto3: boto3.Session
    core: botocore.session.Session
    region: str
    credentials: CredentialSource | None
    ca_bundle: str | None


def emulator_session(region: str | None) -> AwsSession:
    """Return a session for an emulator that fsd started; no configuration file or variable of the user is read."""
    unread = {name: (None, None, *rest) for name, (_, _, *rest) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()}
    files = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    core = botocore.session.Session(session_vars=unread | files)
    return _session(core, region or EMULATOR_REGION, _EMULATOR_CREDENTIALS, None)


def user_session(region: str | None, *, is_local: bool) -> AwsSession:
    """Return a session with the user's AWS configuration, resolved as the AWS SDKs do.

    Parameters
    ----------
    region : str, optional
        AWS region; AWS_REGION, AWS_DEFAULT_REGION or the profile's if not given.
    is_local : bool
        Whether the endpoint is on this machine, that is an emulator of the user's. It accepts any keys and any region,
        so defaults are used if the user has set none.

    Raises
    ------
    SettingError
        The configuration is invalid, or has no region.
    """
    core = botocore.session.Session()
    if is_local:
        # An emulator needs no instance role, and looking for one takes seconds on machines without.
        _configured(lambda: core.get_component("credential_provider").remove("iam-role"))
    found_region = region or os.environ.get("AWS_REGION") or _configured(lambda: core.get_config_variable("region"))
    if not found_region:
        if not is_local:
            raise SettingError("no AWS region is set: give one, or set AWS_REGION")
        found_region = EMULATOR_REGION
    found_region = str(found_region).strip()
    _configured(lambda: validate_region_name(found_region))
    ca_bundle: str | None = _configured(lambda: core.get_config_variable("ca_bundle"))
    return _session(core, found_region, _credentials(core, is_local=is_local), ca_bundle)


def _session(
    core: botocore.session.Session, region: str, credentials: CredentialSource | None, ca_bundle: str | None
) -> AwsSession:
    if isinstance(credentials, Credentials):  # the SDK itself manages keys that it refreshes
        core.set_credentials(credentials.access_key_id, credentials.secret_access_key, credentials.session_token)
    session = _configured(lambda: boto3.Session(botocore_session=core, region_name=region))
    return AwsSession(session, core, region, credentials, ca_bundle)


def _credentials(core: botocore.session.Session, *, is_local: bool) -> CredentialSource | None:
    found = _configured(core.get_credentials)
    if found is None:
        return _EMULATOR_CREDENTIALS if is_local else None

    def read() -> Credentials:
        frozen = _configured(found.get_frozen_credentials)
        return Credentials(frozen.access_key or "", frozen.secret_key or "", frozen.token)

    # Keys of a role, a login or a process expire; botocore refreshes them if they are requested in time.
    now = read()
    return read if isinstance(found, RefreshableCredentials) else now


def _configured(look: Callable[[], T]) -> T:
    """Return the result of an SDK call that reads the user's configuration; raise `SettingError` if it is invalid."""
    try:
        return look()
    except (BotoCoreError, ClientError) as error:  # ClientError: the user may not assume the configured role
        hint = _HINTS.get(type(error), _SIGN_IN if _is_of_sign_in(error) else "see your AWS configuration")
        text = " ".join(str(error).split()).rstrip(".")
        raise SettingError(f"the AWS configuration cannot be used: {text}: {hint}") from error
    except (OSError, ValueError) as error:  # a missing credential_process program, a variable that is not a number
        raise SettingError(f"the AWS configuration cannot be used: {error}") from error


def _is_of_sign_in(error: Exception) -> bool:
    return any(word in type(error).__name__ for word in ("SSO", "Token", "Credential", "Login", "Refresh"))
