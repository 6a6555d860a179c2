"""The stack that Terraform makes, on an emulator that enforces IAM and speaks TLS alone; and who acts on it.

    with deployed_stack(folder) as deployed:
        deployed.client("worker", "sqs").purge_queue(QueueUrl=url)  # refused

Parties are the account's root (``admin``), a user with the module's policy for callers alone (``caller``), and the
functions' roles (``coordinator``, ``worker``), whose credentials are those of the functions' own processes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config

from fsd_inference.aws.emulator import certificate_path, start_emulator, stop_emulator
from fsd_inference.aws.stack import parse_stack
from fsd_inference.stack_description import StackSpec
from fsd_inference.store.bucket import Credentials
from tests.support.lambda_zip import code_zip
from tests.support.processes import environment_of, processes_of
from tests.support.terraform import Deployment, needs_terraform

LANES, RANKS, MEMORY_MB = 2, 6, 512

# In AWS the right to send one message is that to send many. The emulator asks for actions that AWS does not know.
EMULATED_ACTIONS = {
    "sns:Publish": "sns:PublishBatch",
    "sqs:SendMessage": "sqs:SendMessageBatch",
    "sqs:DeleteMessage": "sqs:DeleteMessageBatch",
}

_EXTRA = "emulator"


@dataclass(frozen=True)
class Deployed:
    """A stack, and its parties.

    Attributes
    ----------
    stack : StackSpec
        As the module's output describes it.
    outputs : dict
        All outputs of the module.
    """

    stack: StackSpec
    outputs: dict[str, Any]
    _keys: dict[str, Credentials] = field(default_factory=lambda: {"admin": Credentials("test", "test")})
    _clients: dict[tuple[str, str], Any] = field(default_factory=dict)

    def client(self, party: str, service: str) -> Any:
        """Return a client of a service for one of the parties."""
        if (party, service) not in self._clients:
            keys = self._keys[party] if party in self._keys else self._function_keys(party)
            session = boto3.Session(
                keys.access_key_id, keys.secret_access_key, keys.session_token, region_name=self.stack.region
            )
            self._clients[party, service] = session.client(  # type: ignore[call-overload]
                service, endpoint_url=self.stack.endpoint_url, config=Config(retries={"total_max_attempts": 1})
            )
        return self._clients[party, service]

    def function(self, party: str) -> str:
        """Return the name of the coordinator's or the workers' function."""
        return f"{self.stack.name}-coordinator" if party == "coordinator" else f"{self.stack.name}-worker-{MEMORY_MB}"

    def processes(self, party: str) -> set[int]:
        """Return the processes that the emulator keeps for the coordinator or the workers."""
        return processes_of(self.function(party))

    def make_user(self, name: str, policy_arn: str | None = None) -> Credentials:
        """Make a user who may do what a managed policy says, or nothing: another party."""
        iam = self.client("admin", "iam")
        iam.create_user(UserName=name)
        if policy_arn is not None:
            iam.attach_user_policy(UserName=name, PolicyArn=policy_arn)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        self._keys[name] = Credentials(key["AccessKeyId"], key["SecretAccessKey"])
        return self._keys[name]

    def make_forger(self, name: str, party: str) -> None:
        """Make one who knows the key of a party, and not its secret: another party."""
        self._keys[name] = replace(self._keys[party], secret_access_key="guessed")

    @contextmanager
    def without_batches(self, role: str) -> Iterator[None]:
        """Take from a role, for the length of a `with` block, what `EMULATED_ACTIONS` gave it."""
        iam, name = self.client("admin", "iam"), f"{self.stack.name}-{role}"
        policy = iam.get_role_policy(RoleName=name, PolicyName=_EXTRA)["PolicyDocument"]
        iam.delete_role_policy(RoleName=name, PolicyName=_EXTRA)
        try:
            yield
        finally:
            iam.put_role_policy(RoleName=name, PolicyName=_EXTRA, PolicyDocument=json.dumps(policy))

    def _function_keys(self, party: str) -> Credentials:
        if not self.processes(party):
            self.client("admin", "lambda").invoke(FunctionName=self.function(party), Payload=b"{}")
        variables = environment_of(min(self.processes(party)))
        self._keys[party] = Credentials(
            variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"], variables["AWS_SESSION_TOKEN"]
        )
        return self._keys[party]


@contextmanager
def deployed_stack(folder: Path) -> Iterator[Deployed]:
    """Apply the module; meanwhile this process's own clients are the caller's and trust the emulator's certificate."""
    needs_terraform()
    emulator = start_emulator(tied=True, strict=True)
    try:
        certificate = str(certificate_path(emulator))
        code_zip(folder / "code.zip")
        deployment = Deployment(folder / "terraform", emulator.endpoint_url, {"custom_ca_bundle": certificate})
        deployment.apply(
            name=f"fsd-{uuid4().hex[:8]}",
            package_type="zip",
            zip_runtime="provided.al2023",
            zip_path=folder / "code.zip",
            lanes=LANES,
            ranks=RANKS,
            memory_sizes=[MEMORY_MB],
        )
        outputs = deployment.outputs
        deployed = Deployed(parse_stack(json.loads(outputs["stack_json"])), outputs)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_CA_BUNDLE", certificate)
            keys = deployed.make_user("caller", outputs["caller_policy_arn"])
            _grant_what_only_the_emulator_asks_for(deployed)
            for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE"):
                patch.delenv(name, raising=False)
            patch.setenv("AWS_ACCESS_KEY_ID", keys.access_key_id)
            patch.setenv("AWS_SECRET_ACCESS_KEY", keys.secret_access_key)
            yield deployed
    finally:
        stop_emulator(emulator)  # and with it all that Terraform made; that it can be destroyed is tested elsewhere


def _grant_what_only_the_emulator_asks_for(deployed: Deployed) -> None:
    """Let each party do here what the module lets it do on AWS."""
    iam = deployed.client("admin", "iam")
    for role in ("coordinator", "worker"):
        name = f"{deployed.stack.name}-{role}"
        granted = iam.get_role_policy(RoleName=name, PolicyName="run")["PolicyDocument"]
        iam.put_role_policy(RoleName=name, PolicyName=_EXTRA, PolicyDocument=_emulated(granted))
    arn = deployed.outputs["caller_policy_arn"]
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    granted = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    iam.put_user_policy(UserName="caller", PolicyName=_EXTRA, PolicyDocument=_emulated(granted))


def _emulated(granted: dict[str, Any]) -> str:
    statements = []
    for statement in granted["Statement"]:
        actions = [EMULATED_ACTIONS[action] for action in statement["Action"] if action in EMULATED_ACTIONS]
        resources = statement["Resource"]
        if statement["Sid"] == "Logs":  # AWS names a log group with ":*" at its end here, the emulator without
            actions, resources = statement["Action"], [arn.removesuffix(":*") for arn in resources]
        if actions:
            statements.append({"Effect": "Allow", "Action": actions, "Resource": resources})
    return json.dumps({"Version": "2012-10-17", "Statement": statements})
