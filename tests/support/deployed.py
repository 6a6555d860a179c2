"""A stack deployed by Terraform on an emulator that enforces IAM and accepts only TLS, with clients of its parties.

    with deployed_stack(folder) as deployed:
        deployed.client("worker", "sqs").purge_queue(QueueUrl=url)  # access denied

Parties are the account's root user (``admin``), a user with only the module's policy for callers (``caller``), and the
functions' roles (``coordinator``, ``worker``), whose credentials are read from the functions' own processes.
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
from fsd_inference.chaos.lambda_zip import code_zip
from fsd_inference.chaos.processes import environment_of, processes_of
from fsd_inference.stack_description import StackSpec
from fsd_inference.store.bucket import Credentials
from tests.support.terraform import Deployment, needs_terraform

LANES, RANKS, MEMORY_MB = 2, 6, 512

# In AWS the permission to send one message covers batches. The emulator checks actions that AWS does not have.
EMULATED_ACTIONS = {
    "sns:Publish": "sns:PublishBatch",
    "sqs:SendMessage": "sqs:SendMessageBatch",
    "sqs:DeleteMessage": "sqs:DeleteMessageBatch",
}

_EXTRA = "emulator"


@dataclass(frozen=True)
class Deployed:
    """A deployed stack and its parties.

    Attributes
    ----------
    stack : StackSpec
        Description of the stack, from the module's output.
    outputs : dict
        All outputs of the module, by name.
    """

    stack: StackSpec
    outputs: dict[str, Any]
    _keys: dict[str, Credentials] = field(default_factory=lambda: {"admin": Credentials("test", "test")})
    _clients: dict[tuple[str, str], Any] = field(default_factory=dict)

    def client(self, party: str, service: str) -> Any:
        """Return a boto3 client of a service with the credentials of a party."""
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
        """Return the name of the coordinator or worker function."""
        return f"{self.stack.name}-coordinator" if party == "coordinator" else f"{self.stack.name}-worker-{MEMORY_MB}"

    def processes(self, party: str) -> set[int]:
        """Return the ids of the processes that the emulator runs for the coordinator or worker function."""
        return processes_of(self.function(party))

    def make_user(self, name: str, policy_arn: str | None = None) -> Credentials:
        """Create a user with a managed policy, or without permissions, as an additional party."""
        iam = self.client("admin", "iam")
        iam.create_user(UserName=name)
        if policy_arn is not None:
            iam.attach_user_policy(UserName=name, PolicyArn=policy_arn)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        self._keys[name] = Credentials(key["AccessKeyId"], key["SecretAccessKey"])
        return self._keys[name]

    def make_forger(self, name: str, party: str) -> None:
        """Add a party that knows the access key id of another party, but not its secret key."""
        self._keys[name] = replace(self._keys[party], secret_access_key="guessed")

    @contextmanager
    def without_batches(self, role: str) -> Iterator[None]:
        """Remove the permissions of `EMULATED_ACTIONS` from a role during a `with` block."""
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
    """Deploy the module; meanwhile this process has the caller's credentials and trusts the emulator's certificate."""
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
        stop_emulator(emulator)  # which discards all resources; other tests check `terraform destroy`


def _grant_what_only_the_emulator_asks_for(deployed: Deployed) -> None:
    """Grant each party the emulator's equivalents of its permissions on AWS."""
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
        if statement["Sid"] == "Logs":  # AWS needs ":*" after the ARN of a log group, the emulator expects none
            actions, resources = statement["Action"], [arn.removesuffix(":*") for arn in resources]
        if actions:
            statements.append({"Effect": "Allow", "Action": actions, "Resource": resources})
    return json.dumps({"Version": "2012-10-17", "Statement": statements})
