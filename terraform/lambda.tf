locals {
  # The functions read all other configuration from stack.json in this bucket.
  environment = merge(
    { FSD_STACK_BUCKET = local.network_bucket_name },
    var.endpoint_url == null ? {} : { AWS_ENDPOINT_URL = var.endpoint_url },
    var.metrics ? {} : { FSD_METRICS = "false" },
  )
  coordinator_handler = "fsd_inference.aws.handlers.coordinator.handle"
  worker_handler      = "fsd_inference.aws.handlers.worker.handle"
  zip_sha256          = local.is_zip && local.has_functions ? filebase64sha256(var.zip_path) : null
}

# The zip is deployed through S3, because a direct upload to Lambda is limited to 50 MB.
resource "aws_s3_object" "zip" {
  count = local.is_zip && local.has_functions ? 1 : 0

  bucket = aws_s3_bucket.networks.bucket
  key    = "packages/${filesha256(var.zip_path)}.zip"
  source = var.zip_path

  override_provider {
    default_tags {
      tags = {} # S3 allows 10 tags per object; the bucket has all of them
    }
  }

  depends_on = [aws_s3_bucket_server_side_encryption_configuration.networks]
}

resource "aws_lambda_function" "coordinator" {
  #checkov:skip=CKV_AWS_50:X-Ray is billed per trace; logs contain trace ids, and runs write metrics objects.
  #checkov:skip=CKV_AWS_115:An account with a concurrency of 10 could not reserve any; a run has only one coordinator.
  #checkov:skip=CKV_AWS_116:An on-failure destination is set, which records more than a dead-letter queue.
  #checkov:skip=CKV_AWS_117:It calls AWS services only; in a VPC it would need endpoints that cost money while idle.
  #checkov:skip=CKV_AWS_173:The variables contain bucket names only; Lambda's own key encrypts them unless a key is given.
  #checkov:skip=CKV_AWS_272:Images cannot be signed this way; they are pinned by digest, and zips by their hash.
  count = local.has_functions ? 1 : 0

  function_name = local.coordinator_name
  description   = "FSD-Inference: coordinator, which carries out runs"
  role          = aws_iam_role.coordinator.arn
  architectures = [var.architecture]
  memory_size   = var.coordinator_memory_mb
  timeout       = var.timeout_s
  kms_key_arn   = local.key_arn
  tags          = var.tags

  package_type     = local.is_zip ? "Zip" : "Image"
  image_uri        = local.is_zip ? null : var.image_uri
  runtime          = local.is_zip ? var.zip_runtime : null
  handler          = local.is_zip ? local.coordinator_handler : null
  s3_bucket        = one(aws_s3_object.zip[*].bucket)
  s3_key           = one(aws_s3_object.zip[*].key)
  source_code_hash = local.zip_sha256

  dynamic "image_config" {
    for_each = local.is_zip ? [] : [local.coordinator_handler]
    content {
      command = [image_config.value]
    }
  }
  environment {
    variables = local.environment
  }
  ephemeral_storage {
    size = var.ephemeral_storage_mb
  }
  logging_config {
    log_format = "Text" # the functions already write JSON lines
    log_group  = aws_cloudwatch_log_group.function[local.coordinator_name].name
  }

  depends_on = [aws_iam_role_policy.coordinator]
}

resource "aws_lambda_function" "worker" {
  #checkov:skip=CKV_AWS_50:X-Ray is billed per trace, one per rank; logs contain trace ids, and runs write metrics objects.
  #checkov:skip=CKV_AWS_115:The variable reserved_concurrency sets it; an account with a concurrency of 10 could not reserve any.
  #checkov:skip=CKV_AWS_116:An on-failure destination is set, which records more than a dead-letter queue.
  #checkov:skip=CKV_AWS_117:It calls AWS services only; in a VPC it would need endpoints that cost money while idle.
  #checkov:skip=CKV_AWS_173:The variables contain bucket names only; Lambda's own key encrypts them unless a key is given.
  #checkov:skip=CKV_AWS_272:Images cannot be signed this way; they are pinned by digest, and zips by their hash.
  for_each = local.has_functions ? local.worker_names : {}

  function_name                  = each.value
  description                    = "FSD-Inference: worker with ${each.key} MB, which runs one rank of a run"
  role                           = aws_iam_role.worker.arn
  architectures                  = [var.architecture]
  memory_size                    = tonumber(each.key)
  timeout                        = var.timeout_s
  reserved_concurrent_executions = var.reserved_concurrency
  kms_key_arn                    = local.key_arn
  tags                           = var.tags

  package_type     = local.is_zip ? "Zip" : "Image"
  image_uri        = local.is_zip ? null : var.image_uri
  runtime          = local.is_zip ? var.zip_runtime : null
  handler          = local.is_zip ? local.worker_handler : null
  s3_bucket        = one(aws_s3_object.zip[*].bucket)
  s3_key           = one(aws_s3_object.zip[*].key)
  source_code_hash = local.zip_sha256

  dynamic "image_config" {
    for_each = local.is_zip ? [] : [local.worker_handler]
    content {
      command = [image_config.value]
    }
  }
  environment {
    variables = local.environment
  }
  ephemeral_storage {
    size = var.ephemeral_storage_mb
  }
  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.function[each.value].name
  }

  depends_on = [aws_iam_role_policy.worker]
}

# Lambda's own retries could run a rank twice, or hours later after throttling; only the client retries.
resource "aws_lambda_function_event_invoke_config" "coordinator" {
  count = local.has_functions ? 1 : 0

  function_name                = aws_lambda_function.coordinator[0].function_name
  maximum_retry_attempts       = 0
  maximum_event_age_in_seconds = 60

  destination_config {
    on_failure {
      destination = aws_sqs_queue.failures.arn
    }
  }
}

resource "aws_lambda_function_event_invoke_config" "worker" {
  for_each = aws_lambda_function.worker

  function_name                = each.value.function_name
  maximum_retry_attempts       = 0
  maximum_event_age_in_seconds = 60

  destination_config {
    on_failure {
      destination = aws_sqs_queue.failures.arn
    }
  }
}
