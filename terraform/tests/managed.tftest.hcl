# Tests of the worker function on Managed Instances. tests/terraform/test_managed.py compares the template with Lambda's API.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name      = "fsd"
  lanes     = 0
  image_uri = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/fsd@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  managed_instances = {
    subnet_ids         = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
    security_group_ids = ["sg-0123456789abcdef0"]
  }
}

run "with_defaults" {
  command = apply

  assert {
    condition = [for worker in jsondecode(output.stack_json).functions.workers : jsonencode(worker)][1] == jsonencode({
      arn       = "arn:aws:lambda:eu-west-1:123456789012:function:fsd-worker-32768:$LATEST.PUBLISHED"
      managed   = { environments = 3, vcpus = 16 }
      memory_mb = 32768
    })
    error_message = "stack.json names the version to invoke, and what may run at a time"
  }
  assert {
    condition     = keys(jsondecode(output.stack_json).functions.workers[0]) == ["arn", "memory_mb"]
    error_message = "the other workers are as without Managed Instances"
  }
  assert {
    condition     = output.worker_arns["32768"] == "arn:aws:lambda:eu-west-1:123456789012:function:fsd-worker-32768:$LATEST.PUBLISHED" && output.operator_role_arn != null
    error_message = "the outputs name the function and the role of the instances"
  }
  assert {
    condition = alltrue([
      for policy in [aws_iam_role_policy.worker.policy, aws_iam_role_policy.coordinator.policy] : anytrue([
        for statement in jsondecode(policy).Statement :
        statement.Action == ["lambda:InvokeFunction"] && contains(statement.Resource, "arn:aws:lambda:eu-west-1:123456789012:function:fsd-worker-?????:*")
      ])
    ])
    error_message = "coordinator and workers may invoke its published version"
  }
  assert {
    condition = alltrue([
      for policy in [aws_iam_role_policy.coordinator.policy, aws_iam_policy.caller.policy] : anytrue([
        for statement in jsondecode(policy).Statement :
        contains(statement.Action, "lambda:GetFunctionConfiguration") && contains(statement.Resource, "arn:aws:lambda:eu-west-1:123456789012:function:fsd-worker-?????:*")
      ])
    ])
    error_message = "coordinator and callers may read the state of its published version"
  }
  assert {
    condition     = strcontains(aws_iam_role_policy.worker.policy, "log-group:/aws/lambda/fsd-worker-?????:*") && aws_cloudwatch_log_group.function["fsd-worker-32768"].retention_in_days == 14
    error_message = "it may write to a log group that has a retention"
  }
  assert {
    condition     = aws_iam_role_policy_attachment.operator[0].policy_arn == "arn:aws:iam::aws:policy/AWSLambdaManagedEC2ResourceOperator" && length(aws_iam_role_policy.operator) == 0
    error_message = "Lambda has the rights of AWS's policy, and without a key no others"
  }
  assert {
    condition     = jsondecode(aws_iam_role.operator[0].assume_role_policy).Statement[0].Condition == { StringEquals = { "aws:SourceAccount" = "123456789012" } }
    error_message = "Lambda may assume the role for this account only"
  }
}

run "with_all_settings" {
  command = apply

  variables {
    alarms         = true
    dashboard      = true
    architecture   = "arm64"
    kms_key_create = true
    package_type   = "zip"
    zip_path       = "versions.tf"
    image_uri      = ""
    iam_path       = "/team/"
    tags           = { team = "graph" }
    managed_instances = {
      subnet_ids         = ["subnet-0123456789abcdef0"]
      security_group_ids = ["sg-0123456789abcdef0"]
      instance_types     = ["m7g.4xlarge"]
      memory_mb          = 24576
      gib_per_vcpu       = 8
      environments       = 5
      max_vcpus          = 64
    }
  }

  assert {
    condition     = jsondecode(output.stack_json).functions.workers[1].managed == { environments = 5, vcpus = 3 }
    error_message = "vCPUs follow from memory and GiB a vCPU"
  }
  assert {
    condition     = aws_cloudformation_stack.managed[0].tags == tomap({ team = "graph" }) && aws_iam_role.operator[0].path == "/team/"
    error_message = "tags and IAM path are set"
  }
  assert {
    condition     = length(aws_cloudwatch_metric_alarm.function) == 9 && strcontains(aws_cloudwatch_dashboard.this[0].dashboard_body, "fsd-worker-24576")
    error_message = "alarms and dashboard have the function"
  }
  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_role_policy.operator[0].policy).Statement : statement.Resource == [output.kms_key_arn]
    ]) && aws_cloudwatch_log_group.instances[0].kms_key_id == output.kms_key_arn
    error_message = "the key encrypts disks and logs"
  }
}

run "before_the_image" {
  command = plan

  variables {
    image_uri = ""
  }

  assert {
    condition     = length(aws_cloudformation_stack.managed) == 0 && length(aws_iam_role.operator) == 1 && length(output.worker_arns) == 0
    error_message = "without an image there are no instances"
  }
}

run "without" {
  command = plan

  variables {
    managed_instances = null
  }

  assert {
    condition     = length(aws_cloudformation_stack.managed) + length(aws_iam_role.operator) + length(aws_cloudwatch_log_group.instances) == 0 && output.operator_role_arn == null
    error_message = "Managed Instances are made only on request"
  }
}
