# Tests of the planned resources for various settings; the tests on the emulator show that they can be applied.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name      = "fsd"
  lanes     = 2
  ranks     = 101
  image_uri = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/fsd@sha256:0000000000000000000000000000000000000000000000000000000000000000"
}

run "lanes_and_policies" {
  command = plan

  assert {
    condition     = length(aws_sns_topic.lane) == 4 && length(aws_sqs_queue.lane) == 202 && length(aws_sns_topic_subscription.lane) == 202
    error_message = "each lane has one topic per 100 ranks, and one queue and one subscription per rank"
  }
  assert {
    condition     = jsondecode(aws_sqs_queue.lane["lane1-rank100"].policy).Statement[0].Condition.ArnEquals["aws:SourceArn"] == "arn:aws:sns:eu-west-1:123456789012:fsd-lane1-block1"
    error_message = "rank 100 receives its messages from the topic of the second block"
  }
  assert {
    condition     = alltrue([for queue in aws_sqs_queue.lane : queue.visibility_timeout_seconds == 1200 && queue.message_retention_seconds == 1200])
    error_message = "the queues' visibility timeout and retention are longer than the longest run"
  }
  assert {
    condition     = aws_sns_topic_subscription.lane["lane0-rank7"].filter_policy == jsonencode({ to = ["7", "all"] })
    error_message = "a queue receives the messages for its rank and those for all ranks"
  }

  # S3 must answer polls for absent objects with 404, not 403.
  assert {
    condition = alltrue([
      for policy in [aws_iam_role_policy.worker.policy, aws_iam_role_policy.coordinator.policy, aws_iam_policy.caller.policy] : anytrue([
        for statement in jsondecode(policy).Statement :
        contains(statement.Action, "s3:ListBucket") && contains(statement.Resource, "arn:aws:s3:::fsd-runs-0") && !can(statement.Condition)
      ])
    ])
    error_message = "coordinator, workers and callers may list the run buckets, without a condition"
  }
  assert {
    condition = alltrue(flatten([
      for policy in [aws_iam_role_policy.worker.policy, aws_iam_role_policy.coordinator.policy, aws_iam_policy.caller.policy] : [
        for statement in jsondecode(policy).Statement : [for action in statement.Action : !strcontains(action, "*")]
      ]
    ]))
    error_message = "no policy allows actions by wildcard"
  }
  assert {
    condition = alltrue(flatten([
      for policy in [aws_iam_role_policy.worker.policy, aws_iam_role_policy.coordinator.policy, aws_iam_policy.caller.policy] : [
        for statement in jsondecode(policy).Statement : !contains(statement.Resource, "*") || statement.Action == ["lambda:GetAccountSettings"]
      ]
    ]))
    error_message = "no policy allows all resources, except for actions without resource-level permissions"
  }
  assert {
    condition = alltrue([
      for policy in [aws_iam_role_policy.coordinator.policy, aws_iam_policy.caller.policy] : alltrue([
        for action in ["lambda:GetFunctionConfiguration", "lambda:GetFunctionConcurrency"] : anytrue([
          for statement in jsondecode(policy).Statement :
          contains(statement.Action, action) && contains(statement.Resource, "arn:aws:lambda:eu-west-1:123456789012:function:fsd-worker-1769")
        ])
      ])
    ])
    error_message = "coordinator and callers may read the state and the reserved concurrency of each worker function"
  }
  assert {
    condition     = alltrue([for policy in [aws_iam_role_policy.coordinator.policy, aws_iam_policy.caller.policy] : strcontains(policy, "lambda:GetAccountSettings")])
    error_message = "coordinator and callers may read the account's concurrency limit"
  }
  assert {
    condition     = length(aws_iam_policy.caller.policy) <= 6144 && length(aws_iam_role_policy.worker.policy) <= 10240
    error_message = "policies stay within IAM's limits"
  }
}

run "functions" {
  command = plan

  variables {
    lanes        = 1
    ranks        = 1
    memory_sizes = [3008, 512]
    endpoint_url = "http://127.0.0.1:4566"
    tags         = { team = "graph" }
  }

  assert {
    condition     = keys(aws_lambda_function.worker) == ["3008", "512"] && aws_lambda_function.worker["512"].function_name == "fsd-worker-512"
    error_message = "there is one worker function per memory size"
  }
  assert {
    condition     = aws_lambda_function.worker["512"].image_config[0].command == tolist(["fsd_inference.aws.handlers.worker.handle"])
    error_message = "the image's command is the handler"
  }
  assert {
    condition     = aws_lambda_function.coordinator[0].environment[0].variables == tomap({ AWS_ENDPOINT_URL = "http://127.0.0.1:4566", FSD_STACK_BUCKET = "fsd-networks" })
    error_message = "the functions' environment names the network bucket and the emulator's endpoint"
  }
  assert {
    condition     = alltrue([for config in concat(values(aws_lambda_function_event_invoke_config.worker), aws_lambda_function_event_invoke_config.coordinator) : config.maximum_retry_attempts == 0 && config.maximum_event_age_in_seconds == 60])
    error_message = "Lambda retries no event and drops old ones"
  }
  assert {
    condition     = aws_lambda_function.worker["512"].tags == tomap({ team = "graph" }) && aws_iam_role.worker.tags == tomap({ team = "graph" })
    error_message = "tags are set"
  }
  assert {
    condition     = length(aws_cloudwatch_metric_alarm.function) + length(aws_cloudwatch_metric_alarm.failures) + length(aws_cloudwatch_dashboard.this) + length(aws_kms_key.this) == 0
    error_message = "resources that cost money while idle are created only on request"
  }
  assert {
    condition     = aws_lambda_function.worker["512"].reserved_concurrent_executions == -1
    error_message = "no concurrency is reserved"
  }
}

run "before_the_image" {
  command = plan

  variables {
    lanes     = 0
    image_uri = ""
  }

  assert {
    condition     = length(aws_lambda_function.coordinator) + length(aws_lambda_function.worker) + length(aws_sqs_queue.lane) == 0
    error_message = "without an image there are no functions, and without lanes no queues"
  }
  assert {
    condition     = length(aws_ecr_repository.this) == 1 && aws_ecr_repository.this[0].image_tag_mutability == "IMMUTABLE" && length(aws_cloudwatch_log_group.function) == 2
    error_message = "the repository and all other resources exist"
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.worker.policy, "sns:") && !strcontains(aws_iam_role_policy.worker.policy, "sqs:ReceiveMessage")
    error_message = "the policies of a stack without lanes contain no permissions for lanes"
  }
}

run "zip" {
  command = plan

  variables {
    lanes        = 0
    image_uri    = ""
    package_type = "zip"
    zip_path     = "versions.tf"
    architecture = "arm64"
  }

  assert {
    condition     = aws_lambda_function.worker["1769"].handler == "fsd_inference.aws.handlers.worker.handle" && aws_lambda_function.worker["1769"].runtime == "python3.13"
    error_message = "functions from a zip have a handler and a runtime"
  }
  assert {
    condition     = aws_s3_object.zip[0].key == "packages/${filesha256("versions.tf")}.zip" && length(aws_ecr_repository.this) == 0
    error_message = "the zip is stored in the network bucket under its digest, and no repository is created"
  }
}

run "everything" {
  command = apply

  variables {
    lanes                = 1
    ranks                = 1
    memory_sizes         = [512, 10240, 1769]
    alarms               = true
    alarm_actions        = ["arn:aws:sns:eu-west-1:123456789012:alarms"]
    dashboard            = true
    kms_key_create       = true
    iam_path             = "/team/"
    permissions_boundary = "arn:aws:iam::123456789012:policy/boundary"
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.function) == 12 && length(aws_cloudwatch_metric_alarm.failures) == 1 && length(aws_cloudwatch_dashboard.this) == 1
    error_message = "each function has three alarms, and the failures queue one"
  }
  assert {
    condition     = [for worker in jsondecode(output.stack_json).functions.workers : worker.memory_mb] == [512, 1769, 10240]
    error_message = "stack.json lists the memory sizes in numerical order"
  }
  assert {
    condition     = aws_iam_role.worker.path == "/team/" && aws_iam_role.coordinator.permissions_boundary == "arn:aws:iam::123456789012:policy/boundary"
    error_message = "IAM path and permissions boundary are set"
  }
  assert {
    condition = alltrue(concat(
      [for queue in concat(values(aws_sqs_queue.lane), [aws_sqs_queue.failures]) : queue.kms_master_key_id == output.kms_key_arn],
      [for topic in aws_sns_topic.lane : topic.kms_master_key_id == output.kms_key_arn],
      [for group in aws_cloudwatch_log_group.function : group.kms_key_id == output.kms_key_arn],
      [for function in aws_lambda_function.worker : function.kms_key_arn == output.kms_key_arn],
    ))
    error_message = "the key encrypts queues, topics, logs and environment variables"
  }
  assert {
    condition = alltrue([
      for policy in [aws_iam_role_policy.worker.policy, aws_iam_role_policy.coordinator.policy, aws_iam_policy.caller.policy] : anytrue([
        for statement in jsondecode(policy).Statement : statement.Resource == [output.kms_key_arn] && statement.Action == ["kms:Decrypt", "kms:GenerateDataKey"]
      ])
    ])
    error_message = "coordinator, workers and callers may use the key"
  }
}

run "express" {
  command = plan

  variables {
    lanes           = 0
    storage_class   = "express"
    express_zone_id = "euw1-az1"
    run_buckets     = 2
  }

  assert {
    condition     = [for bucket in aws_s3_directory_bucket.runs : bucket.bucket] == ["fsd-runs-0--euw1-az1--x-s3", "fsd-runs-1--euw1-az1--x-s3"] && length(aws_s3_bucket.runs) == 0
    error_message = "the run buckets are directory buckets"
  }
  assert {
    condition = anytrue([
      for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement :
      statement.Action == ["s3express:CreateSession"] && contains(statement.Resource, "arn:aws:s3express:eu-west-1:123456789012:bucket/fsd-runs-0--euw1-az1--x-s3")
    ])
    error_message = "workers may open sessions on the directory buckets"
  }
}
