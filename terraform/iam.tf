# Least-privilege permissions of the coordinator, the workers and the callers (clients) of a stack.

locals {
  assume_lambda = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })

  # Wildcards, because a policy is limited to 6,144 characters whatever the number of queues, buckets and functions. With
  # one `?` for each digit they match no resources of a stack whose name begins with this one's.
  any_topic_arn  = "${local.sns_arn}:${var.name}-lane*-block*"
  any_queue_arn  = "${local.sqs_arn}:${var.name}-lane*-rank*"
  any_run_bucket = distinct([for index in range(var.run_buckets) : "arn:${local.partition}:s3:::${local.bucket_prefix}-runs-${replace(index, "/./", "?")}${local.bucket_suffix}"])
  any_worker     = distinct([for size in concat(var.memory_sizes, local.managed_sizes) : "${var.name}-worker-${replace(size, "/./", "?")}"])

  # An invocation may name the function itself or one of its versions or aliases.
  coordinator_arns = [local.coordinator_arn, "${local.coordinator_arn}:*"]
  any_worker_arn   = flatten([for name in local.any_worker : ["${local.lambda_arn}:${name}", "${local.lambda_arn}:${name}:*"]])

  # Bucket names are global: once a stack is destroyed, another account may own them.
  of_this_account = { StringEquals = { "aws:ResourceAccount" = local.account } }

  # Without s3:ListBucket, S3 answers 403 instead of 404 for an object that does not exist yet, which a poll could not
  # distinguish from denied access. A condition on the prefix would have the same effect: GET requests have no prefix. S3
  # documents that for an absent object it checks the permission to list, but not with which keys: hence IfExists.
  list_condition = { StringEqualsIfExists = { "aws:ResourceAccount" = local.account } }
  use_run_buckets = [
    {
      Sid       = "RunObjects"
      Effect    = "Allow"
      Action    = ["s3:GetObject", "s3:PutObject"]
      Resource  = [for arn in local.any_run_bucket : "${arn}/*"]
      Condition = local.of_this_account
    },
    {
      Sid       = "ListRuns"
      Effect    = "Allow"
      Action    = ["s3:ListBucket"]
      Resource  = local.any_run_bucket
      Condition = local.list_condition
    },
  ]
  read_networks = [
    {
      Sid       = "ReadPlans"
      Effect    = "Allow"
      Action    = ["s3:GetObject"]
      Resource  = ["${local.network_bucket_arn}/plans/*", "${local.network_bucket_arn}/stack.json"]
      Condition = local.of_this_account
    },
    {
      Sid       = "ListNetworks"
      Effect    = "Allow"
      Action    = ["s3:ListBucket"]
      Resource  = [local.network_bucket_arn]
      Condition = local.list_condition
    },
  ]
  publish = var.lanes == 0 ? [] : [
    {
      Sid      = "Publish"
      Effect   = "Allow"
      Action   = ["sns:Publish"]
      Resource = [local.any_topic_arn]
    },
  ]
  use_key = local.has_key ? [
    {
      Sid      = "Key"
      Effect   = "Allow"
      Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource = [local.key_arn]
    },
  ] : []
  # Each worker function sleeps by itself after weeks without a run, and may have a concurrency of its own.
  look_at_workers = [
    {
      Sid      = "LookAtWorkers"
      Effect   = "Allow"
      Action   = ["lambda:GetFunctionConfiguration", "lambda:GetFunctionConcurrency"]
      Resource = local.any_worker_arn
    },
    {
      Sid      = "CheckAccount" # the action does not support resource-level permissions
      Effect   = "Allow"
      Action   = ["lambda:GetAccountSettings"]
      Resource = ["*"]
    },
  ]
  invoke_workers = [
    {
      Sid      = "InvokeWorkers"
      Effect   = "Allow"
      Action   = ["lambda:InvokeFunction"]
      Resource = local.any_worker_arn
    },
  ]

  worker_statements = concat(
    local.read_networks,
    local.use_run_buckets,
    local.publish,
    var.lanes == 0 ? [] : [
      {
        Sid      = "Receive"
        Effect   = "Allow"
        Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage"]
        Resource = [local.any_queue_arn]
      },
    ],
    local.invoke_workers,
    [
      {
        Sid      = "Failures" # Lambda sends the record of a failed invocation as the function's role
        Effect   = "Allow"
        Action   = ["sqs:SendMessage"]
        Resource = [local.failures_arn]
      },
      {
        Sid      = "Logs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = [for name in local.any_worker : "${local.logs_arn}:/aws/lambda/${name}:*"]
      },
    ],
    local.use_key,
  )

  coordinator_statements = concat(
    local.read_networks,
    local.use_run_buckets,
    [
      {
        Sid       = "Admission" # tickets of runs that ended, and the claim of an attempt that must wait
        Effect    = "Allow"
        Action    = ["s3:DeleteObject"]
        Resource  = flatten([for arn in local.any_run_bucket : ["${arn}/admission/*", "${arn}/runs/*/coordinator"]])
        Condition = local.of_this_account
      },
    ],
    local.publish,
    var.lanes == 0 ? [] : [
      {
        Sid      = "Purge"
        Effect   = "Allow"
        Action   = ["sqs:PurgeQueue"]
        Resource = [local.any_queue_arn]
      },
    ],
    local.invoke_workers,
    local.look_at_workers,
    [
      {
        Sid      = "Failures"
        Effect   = "Allow"
        Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:SendMessage"]
        Resource = [local.failures_arn]
      },
      {
        Sid      = "Logs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = ["${local.logs_arn}:/aws/lambda/${local.coordinator_name}:*"]
      },
    ],
    local.use_key,
  )

  caller_statements = concat(
    [
      {
        Sid      = "InvokeCoordinator"
        Effect   = "Allow"
        Action   = ["lambda:InvokeFunction"]
        Resource = local.coordinator_arns
      },
      {
        Sid       = "WriteNetworks"
        Effect    = "Allow"
        Action    = ["s3:PutObject"]
        Resource  = ["${local.network_bucket_arn}/plans/*", "${local.network_bucket_arn}/networks/*"]
        Condition = local.of_this_account
      },
      {
        Sid       = "ReadIndex"
        Effect    = "Allow"
        Action    = ["s3:GetObject"]
        Resource  = ["${local.network_bucket_arn}/networks/*"]
        Condition = local.of_this_account
      },
      {
        Sid       = "ContinuePush"
        Effect    = "Allow"
        Action    = ["s3:ListMultipartUploadParts", "s3:AbortMultipartUpload"]
        Resource  = ["${local.network_bucket_arn}/plans/*"]
        Condition = local.of_this_account
      },
      {
        Sid       = "FindPush"
        Effect    = "Allow"
        Action    = ["s3:ListBucketMultipartUploads"]
        Resource  = [local.network_bucket_arn]
        Condition = local.of_this_account
      },
      {
        Sid       = "DeleteRuns"
        Effect    = "Allow"
        Action    = ["s3:DeleteObject"]
        Resource  = [for arn in local.any_run_bucket : "${arn}/*"]
        Condition = local.of_this_account
      },
    ],
    local.read_networks,
    local.use_run_buckets,
    [
      {
        Sid      = "CheckCoordinator"
        Effect   = "Allow"
        Action   = ["lambda:GetFunctionConfiguration"]
        Resource = local.coordinator_arns
      },
    ],
    local.look_at_workers,
    var.lanes == 0 ? [] : [
      {
        Sid      = "CheckTopics"
        Effect   = "Allow"
        Action   = ["sns:GetTopicAttributes", "sns:Publish"]
        Resource = [local.any_topic_arn]
      },
      {
        Sid      = "CheckQueues"
        Effect   = "Allow"
        Action   = ["sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:PurgeQueue"]
        Resource = [local.any_queue_arn]
      },
    ],
    local.use_key,
  )
}

resource "aws_iam_role" "coordinator" {
  name                 = local.coordinator_name
  path                 = var.iam_path
  description          = "FSD-Inference: coordinator function of stack ${var.name}"
  assume_role_policy   = local.assume_lambda
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

resource "aws_iam_role" "worker" {
  name                 = "${var.name}-worker"
  path                 = var.iam_path
  description          = "FSD-Inference: worker functions of stack ${var.name}"
  assume_role_policy   = local.assume_lambda
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

resource "aws_iam_role_policy" "coordinator" {
  #checkov:skip=CKV_AWS_355:lambda:GetAccountSettings does not support resource-level permissions.
  name   = "run"
  role   = aws_iam_role.coordinator.name
  policy = jsonencode({ Version = "2012-10-17", Statement = local.coordinator_statements })
}

resource "aws_iam_role_policy" "worker" {
  name   = "run"
  role   = aws_iam_role.worker.name
  policy = jsonencode({ Version = "2012-10-17", Statement = local.worker_statements })
}

resource "aws_iam_policy" "caller" {
  #checkov:skip=CKV_AWS_355:lambda:GetAccountSettings does not support resource-level permissions.
  name        = "${var.name}-caller"
  path        = var.iam_path
  description = "FSD-Inference: permissions of the users of stack ${var.name}"
  policy      = jsonencode({ Version = "2012-10-17", Statement = local.caller_statements })
  tags        = var.tags
}
