# Least-privilege permissions of the coordinator, the workers and the callers (clients) of a stack.

locals {
  assume_lambda = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })

  # Wildcards for all lanes: a policy is limited to 6,144 characters, and a stack may have thousands of queues.
  any_topic_arn = "${local.sns_arn}:${var.name}-lane*-block*"
  any_queue_arn = "${local.sqs_arn}:${var.name}-lane*-rank*"

  # An invocation may name the function itself or one of its versions or aliases.
  coordinator_arns     = [local.coordinator_arn, "${local.coordinator_arn}:*"]
  worker_arns_versions = flatten([for arn in values(local.worker_arns) : [arn, "${arn}:*"]])

  # Without s3:ListBucket, S3 answers 403 instead of 404 for an object that does not exist yet, which a poll could not
  # distinguish from denied access. A condition on the prefix would have the same effect: GET requests have no prefix.
  use_run_buckets = local.is_express ? [
    {
      Sid      = "RunObjects"
      Effect   = "Allow"
      Action   = ["s3express:CreateSession"]
      Resource = local.run_bucket_arns
    },
    ] : [
    {
      Sid      = "RunObjects"
      Effect   = "Allow"
      Action   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
      Resource = [for arn in local.run_bucket_arns : "${arn}/*"]
    },
    {
      Sid      = "ListRuns"
      Effect   = "Allow"
      Action   = ["s3:ListBucket"]
      Resource = local.run_bucket_arns
    },
  ]
  read_networks = [
    {
      Sid      = "ReadPlans"
      Effect   = "Allow"
      Action   = ["s3:GetObject"]
      Resource = ["${local.network_bucket_arn}/plans/*", "${local.network_bucket_arn}/stack.json"]
    },
    {
      Sid      = "ListNetworks"
      Effect   = "Allow"
      Action   = ["s3:ListBucket"]
      Resource = [local.network_bucket_arn]
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
      Resource = local.worker_arns_versions
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
      Resource = local.worker_arns_versions
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
        Action   = ["sqs:ReceiveMessage"]
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
        Resource = [for name in values(local.worker_names) : "${local.logs_arn}:/aws/lambda/${name}:*"]
      },
    ],
    local.use_key,
  )

  coordinator_statements = concat(
    local.read_networks,
    local.use_run_buckets,
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
        Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:SendMessage"]
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
        Sid    = "Push"
        Effect = "Allow"
        Action = ["s3:GetObject", "s3:PutObject"]
        Resource = [
          "${local.network_bucket_arn}/plans/*",
          "${local.network_bucket_arn}/networks/*",
        ]
      },
      {
        Sid      = "ReadStack"
        Effect   = "Allow"
        Action   = ["s3:GetObject"]
        Resource = ["${local.network_bucket_arn}/stack.json"]
      },
      {
        Sid      = "ListNetworks"
        Effect   = "Allow"
        Action   = ["s3:ListBucket"]
        Resource = [local.network_bucket_arn]
      },
    ],
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
