output "stack_json" {
  description = "The stack's description, version 2: `terraform output -raw stack_json > stack.json`."
  value       = local.stack_json
}

output "repository_url" {
  description = "Where to push the image; null for package_type = \"zip\"."
  value       = one(aws_ecr_repository.this[*].repository_url)
}

output "repository_arn" {
  description = "ARN of the image repository; null for package_type = \"zip\"."
  value       = one(aws_ecr_repository.this[*].arn)
}

output "coordinator_arn" {
  description = "ARN of the coordinator function; null before there are functions."
  value       = one(aws_lambda_function.coordinator[*].arn)
}

output "worker_arns" {
  description = "ARNs of the worker functions by memory size in MB; empty before there are functions."
  value       = { for size, function in aws_lambda_function.worker : size => function.arn }
}

output "coordinator_role_arn" {
  description = "ARN of the coordinator's role."
  value       = aws_iam_role.coordinator.arn
}

output "worker_role_arn" {
  description = "ARN of the workers' role."
  value       = aws_iam_role.worker.arn
}

output "caller_policy_arn" {
  description = "ARN of the policy for users of the stack: attach it to their roles."
  value       = aws_iam_policy.caller.arn
}

output "run_bucket_arns" {
  description = "ARNs of the buckets of the runs."
  value       = local.run_bucket_arns
}

output "network_bucket_arn" {
  description = "ARN of the bucket of networks."
  value       = aws_s3_bucket.networks.arn
}

output "topic_arns" {
  description = "ARNs of all lanes' topics."
  value       = [for topic in aws_sns_topic.lane : topic.arn]
}

output "queue_arns" {
  description = "ARNs of all lanes' queues."
  value       = [for queue in aws_sqs_queue.lane : queue.arn]
}

output "failures_queue_arn" {
  description = "ARN of the queue of failed invocations."
  value       = aws_sqs_queue.failures.arn
}

output "log_group_arns" {
  description = "ARNs of the functions' log groups, by the function's name."
  value       = { for name, group in aws_cloudwatch_log_group.function : name => group.arn }
}

output "kms_key_arn" {
  description = "ARN of the KMS key in use; null for AWS's own keys."
  value       = local.key_arn
}
