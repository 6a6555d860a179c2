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
    error_message = "the queues' retention is longer than the longest run, and a received message hides until it expires"
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
        contains(statement.Action, "s3:ListBucket") && statement.Resource == ["arn:aws:s3:::fsd-runs-?"] && jsonencode(try(statement.Condition, null)) == jsonencode({ StringEqualsIfExists = { "aws:ResourceAccount" = "123456789012" } })
      ])
    ])
    error_message = "coordinator, workers and callers may list the run buckets, with no condition but on the account"
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
          contains(statement.Action, action) && contains(statement.Resource, "arn:aws:lambda:eu-west-1:123456789012:function:fsd-worker-????")
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
    condition = alltrue(flatten([
      for policy in [aws_iam_role_policy.worker.policy, aws_iam_role_policy.coordinator.policy, aws_iam_policy.caller.policy] : [
        for statement in jsondecode(policy).Statement :
        [for keys in values(statement.Condition) : keys["aws:ResourceAccount"]] == ["123456789012"] if anytrue([for action in statement.Action : startswith(action, "s3:")])
      ]
    ]))
    error_message = "all permissions on objects are limited to buckets of this account"
  }
  assert {
    condition = alltrue([
      for role in [aws_iam_role.coordinator, aws_iam_role.worker] :
      jsondecode(role.assume_role_policy).Statement[0].Condition == { StringEquals = { "aws:SourceAccount" = "123456789012" } }
    ])
    error_message = "Lambda may assume the roles for functions of this account only"
  }
  assert {
    condition     = aws_s3_bucket_lifecycle_configuration.networks.rule[0].abort_incomplete_multipart_upload[0].days_after_initiation == 7
    error_message = "uploads that were broken off are deleted after a week"
  }
}

# tests/unit/test_rights.py compares these lists with the requests that the code sends.
run "rights" {
  command = plan

  variables {
    lanes       = 1
    ranks       = 1
    kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  }

  assert {
    condition = sort(distinct(flatten([for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Action]))) == tolist([
      "kms:Decrypt", "kms:GenerateDataKey", "lambda:InvokeFunction", "logs:CreateLogStream", "logs:PutLogEvents",
      "s3:GetObject", "s3:ListBucket", "s3:PutObject", "sns:Publish", "sqs:DeleteMessage", "sqs:ReceiveMessage",
      "sqs:SendMessage",
    ])
    error_message = "the worker has the rights that it uses"
  }
  assert {
    condition = sort(distinct(flatten([for statement in jsondecode(aws_iam_role_policy.coordinator.policy).Statement : statement.Action]))) == tolist([
      "kms:Decrypt", "kms:GenerateDataKey", "lambda:GetAccountSettings", "lambda:GetFunctionConcurrency",
      "lambda:GetFunctionConfiguration", "lambda:InvokeFunction", "logs:CreateLogStream", "logs:PutLogEvents",
      "s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject", "sns:Publish", "sqs:DeleteMessage", "sqs:PurgeQueue",
      "sqs:ReceiveMessage", "sqs:SendMessage",
    ])
    error_message = "the coordinator has the rights that it uses"
  }
  assert {
    condition = sort(distinct(flatten([for statement in jsondecode(aws_iam_policy.caller.policy).Statement : statement.Action]))) == tolist([
      "kms:Decrypt", "kms:GenerateDataKey", "lambda:GetAccountSettings", "lambda:GetFunctionConcurrency",
      "lambda:GetFunctionConfiguration", "lambda:InvokeFunction", "s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:ListBucket",
      "s3:ListBucketMultipartUploads", "s3:ListMultipartUploadParts", "s3:PutObject", "sns:GetTopicAttributes",
      "sns:Publish", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:PurgeQueue", "sqs:ReceiveMessage",
    ])
    error_message = "the caller has the rights that it uses"
  }
}

# The longest names and the most of everything.
run "long_policies" {
  command = plan

  variables {
    name          = "a23456789-123456789-123456789-12"
    bucket_prefix = "b23456789-123456789-123456789-12"
    lanes         = 4
    ranks         = 64
    run_buckets   = 20
    memory_sizes  = [for size in range(40) : 128 + 250 * size]
    kms_key_arn   = "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-00000000000000000000000000000000"
    image_uri     = ""
  }

  override_data {
    target = data.aws_partition.current
    values = {
      partition = "aws-us-gov"
    }
  }
  override_data {
    target = data.aws_region.current
    values = {
      id = "us-gov-west-1"
    }
  }

  assert {
    condition     = length(aws_sqs_queue.lane) == 256
    error_message = "this stack has 256 queues"
  }
  assert {
    condition     = length(aws_iam_policy.caller.policy) <= 6144
    error_message = "the policy of the callers has ${length(aws_iam_policy.caller.policy)} characters, and IAM allows 6,144"
  }
  assert {
    condition     = max(length(aws_iam_role_policy.worker.policy), length(aws_iam_role_policy.coordinator.policy)) <= 10240
    error_message = "a role's inline policy has more than the 10,240 characters that IAM allows"
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

run "without_metrics" {
  command = plan

  variables {
    lanes   = 0
    metrics = false
  }

  assert {
    condition = alltrue([
      for function in concat(values(aws_lambda_function.worker), aws_lambda_function.coordinator) :
      function.environment[0].variables == tomap({ FSD_METRICS = "false", FSD_STACK_BUCKET = "fsd-networks" })
    ])
    error_message = "the functions' environment switches metrics off"
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

# With the tested provider only the names are there, and a warning says so.
run "account_regional_names" {
  command = plan

  variables {
    lanes            = 0
    run_buckets      = 11
    bucket_namespace = "account-regional"
  }

  expect_failures = [check.bucket_namespace]

  assert {
    condition     = aws_s3_bucket.networks.bucket == "fsd-networks-123456789012-eu-west-1-an" && aws_s3_bucket.runs[10].bucket == "fsd-runs-10-123456789012-eu-west-1-an"
    error_message = "names end with account, region and -an"
  }
  assert {
    condition = anytrue([
      for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement :
      statement.Resource == ["arn:aws:s3:::fsd-runs-?-123456789012-eu-west-1-an", "arn:aws:s3:::fsd-runs-??-123456789012-eu-west-1-an"]
    ])
    error_message = "policies name the buckets so"
  }
}
