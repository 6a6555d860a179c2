"""The CloudFormation template of the worker function on Managed Instances, against the API that carries it out.

CloudFormation's properties have the names of the API's parameters, of which botocore has AWS's own description. No
emulator knows Managed Instances, so the template comes from a mocked apply.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.session import Session
from botocore.validate import validate_parameters

from tests.support.terraform import Terraform

pytestmark = [pytest.mark.terraform, pytest.mark.timeout(300)]

LAMBDA = Session().get_service_model("lambda")
PROVIDER = "arn:aws:lambda:eu-west-1:123456789012:capacity-provider:instances"


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return the resources that each run of the module's own test makes with CloudFormation."""
    module = Terraform(Terraform(tmp_path_factory.mktemp("managed")).copy_module())
    module.init()
    done = module.run("test", "-json", "-verbose", "-filter=tests/managed.tftest.hcl")
    found = {}
    for event in map(json.loads, done.stdout.splitlines()):
        for resource in event.get("test_state", {}).get("root_module", {}).get("resources", []):
            if resource["type"] == "aws_cloudformation_stack":
                found[event["@testrun"]] = json.loads(resource["values"]["template_body"])["Resources"]
    return found


def check(operation: str, parameters: dict[str, Any]) -> None:
    """Raise an error for parameters that are missing, unknown, or of the wrong type."""
    shape = LAMBDA.operation_model(operation).input_shape
    assert shape is not None
    validate_parameters(parameters, shape)


@pytest.mark.parametrize("run", ["with_defaults", "with_all_settings"])
def test_lambda_knows_all_properties(run: str, templates: dict[str, dict[str, Any]]) -> None:
    resources = {name: (value["Type"], dict(value["Properties"])) for name, value in templates[run].items()}
    kind, instances = resources.pop("Instances")
    assert kind == "AWS::Lambda::CapacityProvider"
    check("CreateCapacityProvider", {"CapacityProviderName": "instances", **instances})

    kind, worker = resources.pop("Worker")
    assert kind == "AWS::Lambda::Function"
    managed = worker["CapacityProviderConfig"]["LambdaManagedInstancesCapacityProviderConfig"]
    assert managed["CapacityProviderArn"] == {"Fn::GetAtt": ["Instances", "Arn"]}
    worker["CapacityProviderConfig"] = {
        "LambdaManagedInstancesCapacityProviderConfig": {**managed, "CapacityProviderArn": PROVIDER}
    }
    # The three properties with other names: PublishTo, a request of its own, and KMSKeyArn.
    assert worker.pop("PublishToLatestPublished") is True
    scaling = {"FunctionScalingConfig": worker.pop("FunctionScalingConfig")}
    check("PutFunctionScalingConfig", {"FunctionName": worker["FunctionName"], "Qualifier": "1", **scaling})
    check("CreateFunction", {name.replace("Kms", "KMS"): value for name, value in worker.items()})

    kind, events = resources.pop("WorkerEvents")
    assert kind == "AWS::Lambda::EventInvokeConfig"
    assert events["FunctionName"] == {"Ref": "Worker"}
    check("PutFunctionEventInvokeConfig", {**events, "FunctionName": worker["FunctionName"]})
    assert not resources


def test_a_worker_has_its_environments_for_itself_and_is_never_tried_again(
    templates: dict[str, dict[str, Any]],
) -> None:
    worker, events = (templates["with_defaults"][name]["Properties"] for name in ("Worker", "WorkerEvents"))
    managed = worker["CapacityProviderConfig"]["LambdaManagedInstancesCapacityProviderConfig"]
    assert (worker["MemorySize"], managed["ExecutionEnvironmentMemoryGiBPerVCpu"]) == (32_768, 2)
    assert managed["PerExecutionEnvironmentMaxConcurrency"] == 1
    assert worker["FunctionScalingConfig"] == {"MinExecutionEnvironments": 3, "MaxExecutionEnvironments": 3}
    assert worker["LoggingConfig"] == {"LogFormat": "JSON", "LogGroup": "/aws/lambda/fsd-worker-32768"}
    assert worker["Environment"] == {"Variables": {"FSD_STACK_BUCKET": "fsd-networks"}}
    assert worker["ImageConfig"] == {"Command": ["fsd_inference.aws.handlers.worker.handle"]}
    assert (events["Qualifier"], events["MaximumRetryAttempts"], events["MaximumEventAgeInSeconds"]) == (
        "$LATEST.PUBLISHED",
        0,
        60,
    )


def test_settings_reach_the_instances(templates: dict[str, dict[str, Any]]) -> None:
    default, chosen = (templates[run]["Instances"]["Properties"] for run in ("with_defaults", "with_all_settings"))
    assert default["VpcConfig"] == {
        "SubnetIds": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
        "SecurityGroupIds": ["sg-0123456789abcdef0"],
    }
    assert default["InstanceRequirements"] == {"Architectures": ["x86_64"]}
    assert default["CapacityProviderScalingConfig"] == {"ScalingMode": "Auto", "MaxVCpuCount": 400}
    assert chosen["InstanceRequirements"] == {"Architectures": ["arm64"], "AllowedInstanceTypes": ["m7g.4xlarge"]}
    assert chosen["CapacityProviderScalingConfig"]["MaxVCpuCount"] == 64
    key = chosen["KmsKeyArn"]
    worker = templates["with_all_settings"]["Worker"]["Properties"]
    assert (worker["KmsKeyArn"], worker["Handler"]) == (key, "fsd_inference.aws.handlers.worker.handle")
    assert worker["Code"]["S3Key"].startswith("packages/")
