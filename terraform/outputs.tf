output "stack_json" {
  description = "Description of the stack (format version 2): `terraform output -raw stack_json > stack.json`."
  value       = local.stack_json
}

output "repository_url" {
  description = "URL of the image repository to push to; null for package_type = \"zip\"."
  value       = one(aws_ecr_repository.this[*].repository_url)
}

output "repository_arn" {
  description = "ARN of the image repository; null for package_type = \"zip\"."
  value       = one(aws_ecr_repository.this[*].arn)
}

output "coordinator_arn" {
  description = "ARN of the coordinator function; null while there are no functions."
  value       = one(aws_lambda_function.coordinator[*].arn)
}

output "worker_arns" {
  description = "ARNs of the worker functions by memory size in MB; empty while there are no functions."
  value = merge(
    { for size, function in aws_lambda_function.worker : size => function.arn },
    local.has_functions ? { for worker in local.managed_workers : tostring(worker.memory_mb) => worker.arn } : {},
  )
}

output "coordinator_role_arn" {
  description = "ARN of the coordinator function's role."
  value       = aws_iam_role.coordinator.arn
}

output "worker_role_arn" {
  description = "ARN of the worker functions' role."
  value       = aws_iam_role.worker.arn
}

output "operator_role_arn" {
  description = "ARN of the role with which Lambda runs Managed Instances; null without them."
  value       = one(aws_iam_role.operator[*].arn)
}

output "caller_policy_arn" {
  description = "ARN of the policy with the permissions of the stack's users; attach it to their roles."
  value       = aws_iam_policy.caller.arn
}

output "run_bucket_arns" {
  description = "ARNs of the run buckets."
  value       = local.run_bucket_arns
}

output "network_bucket_arn" {
  description = "ARN of the network bucket."
  value       = aws_s3_bucket.networks.arn
}

output "topic_arns" {
  description = "ARNs of the topics of all lanes."
  value       = [for topic in aws_sns_topic.lane : topic.arn]
}

output "queue_arns" {
  description = "ARNs of the queues of all lanes."
  value       = [for queue in aws_sqs_queue.lane : queue.arn]
}

output "failures_queue_arn" {
  description = "ARN of the queue that receives Lambda's records of failed invocations."
  value       = aws_sqs_queue.failures.arn
}

output "log_group_arns" {
  description = "ARNs of the functions' log groups by function name."
  value       = { for name, group in aws_cloudwatch_log_group.function : name => group.arn }
}

output "kms_key_arn" {
  description = "ARN of the KMS key in use; null with AWS's own keys."
  value       = local.key_arn
}
