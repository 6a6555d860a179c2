# Lanes. Each has one topic per 100 ranks and one queue per rank, which receives messages addressed to its rank or to
# `all`. `fsd stack up` creates the same on an emulator.

locals {
  # A received message stays hidden until it expires, so that the next run on the lane does not receive it.
  message_lifetime_s = ceil(var.longest_run_s) + 300
}

resource "aws_sns_topic" "lane" {
  #checkov:skip=CKV_AWS_26:With SNS's own key other services cannot publish, and SNS stores nothing; kms_key_create and kms_key_arn encrypt.
  for_each = local.topics

  name              = "${var.name}-${each.key}"
  kms_master_key_id = local.key_arn
  tags              = var.tags
}

resource "aws_sqs_queue" "lane" {
  for_each = local.queues

  name                              = "${var.name}-${each.key}"
  visibility_timeout_seconds        = local.message_lifetime_s
  message_retention_seconds         = local.message_lifetime_s
  max_message_size                  = 262144
  kms_master_key_id                 = local.key_arn
  kms_data_key_reuse_period_seconds = local.has_key ? 3600 : null
  sqs_managed_sse_enabled           = local.has_key ? null : true
  tags                              = var.tags

  # Inline, because a separate policy resource would add a request and a wait per queue.
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "sns.amazonaws.com" }
      Action    = "sqs:SendMessage"
      Resource  = local.queue_arns[each.key]
      Condition = { ArnEquals = { "aws:SourceArn" = local.topic_arns[each.value.topic] } }
    }]
  })
}

resource "aws_sns_topic_subscription" "lane" {
  for_each = local.queues

  topic_arn            = aws_sns_topic.lane[each.value.topic].arn
  protocol             = "sqs"
  endpoint             = aws_sqs_queue.lane[each.key].arn
  raw_message_delivery = true
  filter_policy_scope  = "MessageAttributes"
  filter_policy        = jsonencode({ to = [tostring(each.value.rank), "all"] })
}

# Lambda's records of failed invocations (out of memory, timed out, throttled, or expired events). The coordinator of the
# run reads them within seconds; records that remain belong to runs without a coordinator.
resource "aws_sqs_queue" "failures" {
  name                              = local.failures_name
  visibility_timeout_seconds        = 30
  message_retention_seconds         = 86400
  max_message_size                  = 262144
  kms_master_key_id                 = local.key_arn
  kms_data_key_reuse_period_seconds = local.has_key ? 3600 : null
  sqs_managed_sse_enabled           = local.has_key ? null : true
  tags                              = var.tags
}
