data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.id # `name` is deprecated in later providers, `region` is not in earlier ones

  # Names and ARNs are composed here instead of read from resources, which would be a dependency cycle: roles refer to
  # functions, functions to roles, and queues to themselves in their policies.
  bucket_prefix       = coalesce(var.bucket_prefix, var.name)
  bucket_suffix       = var.bucket_namespace == "global" ? "" : "-${local.account}-${local.region}-an"
  run_bucket_names    = [for index in range(var.run_buckets) : "${local.bucket_prefix}-runs-${index}${local.bucket_suffix}"]
  run_bucket_arns     = [for name in local.run_bucket_names : "arn:${local.partition}:s3:::${name}"]
  network_bucket_name = "${local.bucket_prefix}-networks${local.bucket_suffix}"
  network_bucket_arn  = "arn:${local.partition}:s3:::${local.network_bucket_name}"

  sns_arn    = "arn:${local.partition}:sns:${local.region}:${local.account}"
  sqs_arn    = "arn:${local.partition}:sqs:${local.region}:${local.account}"
  lambda_arn = "arn:${local.partition}:lambda:${local.region}:${local.account}:function"
  logs_arn   = "arn:${local.partition}:logs:${local.region}:${local.account}:log-group"

  coordinator_name = "${var.name}-coordinator"
  coordinator_arn  = "${local.lambda_arn}:${local.coordinator_name}"
  worker_names     = { for size in var.memory_sizes : tostring(size) => "${var.name}-worker-${size}" }
  function_names   = concat([local.coordinator_name], values(local.worker_names), compact([local.managed_name]))
  failures_name    = "${var.name}-failures"
  failures_arn     = "${local.sqs_arn}:${local.failures_name}"

  # Plan no lanes if a precondition below rejects their number: planning a million queues first would take hours.
  lanes = var.lanes * var.ranks <= local.most_queues ? var.lanes : 0

  most_queues     = 10000 # AWS's limit of filter policies per account
  ranks_per_topic = 100   # within AWS's limit of 200 filter policies per topic, and one message can address them all
  topics = {
    for place in setproduct(range(local.lanes), range(ceil(var.ranks / local.ranks_per_topic))) :
    "lane${place[0]}-block${place[1]}" => { lane = place[0], block = place[1] }
  }
  queues = {
    for place in setproduct(range(local.lanes), range(var.ranks)) :
    "lane${place[0]}-rank${place[1]}" => {
      rank  = place[1]
      topic = "lane${place[0]}-block${floor(place[1] / local.ranks_per_topic)}"
    }
  }
  topic_arns = { for key, _ in local.topics : key => "${local.sns_arn}:${var.name}-${key}" }
  queue_arns = { for key, _ in local.queues : key => "${local.sqs_arn}:${var.name}-${key}" }

  is_zip        = var.package_type == "zip"
  has_functions = local.is_zip ? var.zip_path != null : var.image_uri != ""

  stack = {
    format       = "fsd-stack"
    version      = 2
    name         = var.name
    endpoint_url = var.endpoint_url
    region       = local.region
    lanes = [
      for lane in range(local.lanes) : {
        topic_arns = [
          for block in range(ceil(var.ranks / local.ranks_per_topic)) : aws_sns_topic.lane["lane${lane}-block${block}"].arn
        ]
        queue_urls = [for rank in range(var.ranks) : aws_sqs_queue.lane["lane${lane}-rank${rank}"].url]
      }
    ]
    run_buckets    = local.run_bucket_names
    network_bucket = local.network_bucket_name
    message_bytes  = var.message_bytes
    longest_run_s  = var.longest_run_s
    purge_settle_s = var.purge_settle_s
    publish_quota  = var.publish_quota
    emulator       = null
    functions = local.has_functions ? {
      coordinator = aws_lambda_function.coordinator[0].arn
      workers = concat([
        # sort() takes strings; with zero padding their order is that of the numbers.
        for padded in sort([for size in var.memory_sizes : format("%05d", size)]) : {
          memory_mb = tonumber(padded)
          arn       = aws_lambda_function.worker[tostring(tonumber(padded))].arn
        }
      ], local.managed_workers)
      failures_queue_url = aws_sqs_queue.failures.url
      timeout_s          = var.timeout_s
    } : null
  }
  stack_json = jsonencode(local.stack)
}

# Constraints between variables, which the validation of a single variable cannot express before Terraform 1.9.
resource "terraform_data" "rules" {
  lifecycle {
    precondition {
      condition     = var.package_type == "image" || var.image_uri == ""
      error_message = "image_uri requires package_type = \"image\"; leave it empty, or change package_type."
    }
    precondition {
      condition     = var.package_type == "zip" || var.zip_path == null
      error_message = "zip_path requires package_type = \"zip\"; leave it out, or change package_type."
    }
    precondition {
      condition     = var.image_uri == "" || var.endpoint_url != null || strcontains(var.image_uri, ".dkr.ecr.${local.region}.")
      error_message = "image_uri must be in ECR in the provider's region (${local.region}): Lambda accepts no other registries."
    }
    precondition {
      condition     = var.timeout_s <= var.longest_run_s
      error_message = "timeout_s (${var.timeout_s}) must not be longer than longest_run_s (${var.longest_run_s}): queues would deliver a message again while a function still works on it."
    }
    precondition {
      condition     = var.lanes * var.ranks <= local.most_queues
      error_message = "lanes x ranks (${var.lanes} x ${var.ranks}) must be at most ${local.most_queues}, AWS's limit of filter policies per account."
    }
    precondition {
      condition     = !(var.kms_key_create && var.kms_key_arn != null)
      error_message = "kms_key_create and kms_key_arn exclude each other: create a key or give one."
    }
    precondition {
      condition     = !local.has_managed || var.endpoint_url == null
      error_message = "managed_instances requires AWS itself, since emulators have no Managed Instances; leave it or endpoint_url out."
    }
    precondition {
      condition     = !local.has_managed || !local.is_zip || can(regex("^python3[.]1[3-9]$", var.zip_runtime))
      error_message = "managed_instances requires zip_runtime python3.13 or newer, not ${var.zip_runtime}: Managed Instances run no older Python."
    }
    precondition {
      condition     = var.alarms || length(var.alarm_actions) == 0
      error_message = "alarm_actions requires alarms = true."
    }
  }
}

# The argument, which providers before 6.37 refuse, comes from an override file (README.md, "Who may use what").
check "bucket_namespace" {
  assert {
    condition     = var.bucket_namespace == "global" || lookup(aws_s3_bucket.networks, "bucket_namespace", null) == var.bucket_namespace
    error_message = "bucket_namespace = \"account-regional\" takes effect only with AWS provider 6.37 or newer and the override file in the module's README.md; S3 will refuse the buckets without."
  }
}
