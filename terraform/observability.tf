locals {
  # For each function and metric: alarm if the sum over 5 minutes is more than 0.
  function_alarms = {
    for pair in setproduct(local.function_names, ["Errors", "Throttles", "RecursiveInvocationsDropped"]) :
    "${pair[0]}-${pair[1]}" => { function = pair[0], metric = pair[1] } if var.alarms
  }
}

# Created by Terraform so that they have a retention and the functions need no permission to create them.
resource "aws_cloudwatch_log_group" "function" {
  #checkov:skip=CKV_AWS_158:CloudWatch's own keys encrypt logs unless kms_key_create or kms_key_arn is set.
  #checkov:skip=CKV_AWS_338:Runs are short and their logs serve debugging; log_retention_days sets the retention.
  for_each = toset(local.function_names)

  name              = "/aws/lambda/${each.value}"
  retention_in_days = var.log_retention_days
  kms_key_id        = local.key_arn
  tags              = var.tags
}

resource "aws_cloudwatch_metric_alarm" "function" {
  for_each = local.function_alarms

  alarm_name          = each.key
  alarm_description   = "${each.value.metric} of function ${each.value.function}"
  namespace           = "AWS/Lambda"
  metric_name         = each.value.metric
  dimensions          = { FunctionName = each.value.function }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "failures" {
  count = var.alarms ? 1 : 0

  alarm_name          = "${local.failures_name}-depth"
  alarm_description   = "Records of failed invocations that no coordinator has read"
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = local.failures_name }
  statistic           = "Maximum"
  period              = 300
  evaluation_periods  = 2
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_dashboard" "this" {
  count = var.dashboard ? 1 : 0

  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [
      for index, graph in [
        { title = "Invocations", namespace = "AWS/Lambda", metric = "Invocations", stat = "Sum", key = "FunctionName", names = local.function_names },
        { title = "Duration", namespace = "AWS/Lambda", metric = "Duration", stat = "Maximum", key = "FunctionName", names = local.function_names },
        { title = "Errors", namespace = "AWS/Lambda", metric = "Errors", stat = "Sum", key = "FunctionName", names = local.function_names },
        { title = "Throttles", namespace = "AWS/Lambda", metric = "Throttles", stat = "Sum", key = "FunctionName", names = local.function_names },
        { title = "Concurrent executions", namespace = "AWS/Lambda", metric = "ConcurrentExecutions", stat = "Maximum", key = "FunctionName", names = local.function_names },
        { title = "Unread failure records", namespace = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", stat = "Maximum", key = "QueueName", names = [local.failures_name] },
        ] : {
        type   = "metric"
        x      = index % 2 * 12
        y      = floor(index / 2) * 6
        width  = 12
        height = 6
        properties = {
          title   = graph.title
          region  = local.region
          view    = "timeSeries"
          period  = 60
          stat    = graph.stat
          metrics = [for name in graph.names : [graph.namespace, graph.metric, graph.key, name]]
        }
      }
    ]
  })
}
