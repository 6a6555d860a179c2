locals {
  # Nothing else is set: what functions need to know is in the stack.json that lies in this bucket.
  environment = merge(
    { FSD_STACK_BUCKET = local.network_bucket_name },
    var.endpoint_url == null ? {} : { AWS_ENDPOINT_URL = var.endpoint_url },
  )
  coordinator_handler = "fsd_inference.aws.handlers.coordinator.handle"
  worker_handler      = "fsd_inference.aws.handlers.worker.handle"
  zip_sha256          = local.is_zip && local.has_functions ? filebase64sha256(var.zip_path) : null
}

# Through S3, since a request of Lambda's own takes 50 MB at most.
resource "aws_s3_object" "zip" {
  count = local.is_zip && local.has_functions ? 1 : 0

  bucket = aws_s3_bucket.networks.bucket
  key    = "packages/${filesha256(var.zip_path)}.zip"
  source = var.zip_path

  override_provider {
    default_tags {
      tags = {} # an object can have 10 tags; the bucket has them all
    }
  }

  depends_on = [aws_s3_bucket_server_side_encryption_configuration.networks]
}

resource "aws_lambda_function" "coordinator" {
  #checkov:skip=CKV_AWS_50:X-Ray is billed by the trace; logs carry trace ids, and runs leave metrics objects.
  #checkov:skip=CKV_AWS_115:An account of 10 concurrent invocations could not set any apart; a coordinator runs once a run.
  #checkov:skip=CKV_AWS_116:An on-failure destination is set, which tells more than a dead-letter queue.
  #checkov:skip=CKV_AWS_117:It talks to AWS services alone; in a VPC it would need endpoints that cost money while idle.
  #checkov:skip=CKV_AWS_173:Environments hold names of buckets; Lambda's own key encrypts them unless a key is given.
  #checkov:skip=CKV_AWS_272:Images cannot be signed this way; they are pinned by digest, and zips by their hash.
  count = local.has_functions ? 1 : 0

  function_name = local.coordinator_name
  description   = "FSD-Inference: carries out runs"
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
    log_format = "Text" # the functions write JSON lines themselves
    log_group  = aws_cloudwatch_log_group.function[local.coordinator_name].name
  }

  depends_on = [aws_iam_role_policy.coordinator]
}

resource "aws_lambda_function" "worker" {
  #checkov:skip=CKV_AWS_50:X-Ray is billed by the trace, one a rank; logs carry trace ids, and runs leave metrics objects.
  #checkov:skip=CKV_AWS_115:reserved_concurrency sets some apart; an account of 10 concurrent invocations could not.
  #checkov:skip=CKV_AWS_116:An on-failure destination is set, which tells more than a dead-letter queue.
  #checkov:skip=CKV_AWS_117:It talks to AWS services alone; in a VPC it would need endpoints that cost money while idle.
  #checkov:skip=CKV_AWS_173:Environments hold names of buckets; Lambda's own key encrypts them unless a key is given.
  #checkov:skip=CKV_AWS_272:Images cannot be signed this way; they are pinned by digest, and zips by their hash.
  for_each = local.has_functions ? local.worker_names : {}

  function_name                  = each.value
  description                    = "FSD-Inference: a rank of a run, with ${each.key} MB"
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

# Lambda's own repeats would run a rank twice, hours later if throttled: retries come from the client alone.
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
