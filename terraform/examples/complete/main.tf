# A stack with most settings changed: sizes, lanes, a KMS key of its own, a permissions boundary, alarms.

terraform {
  required_version = ">= 1.7"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7"
    }
  }
}

variable "region" {
  description = "Region of the stack."
  type        = string
  default     = "us-east-1"
}

variable "image_uri" {
  description = "Container image of the functions, by digest."
  type        = string
  default     = ""
}

variable "permissions_boundary" {
  description = "ARN of the policy that is the roles' permissions boundary; none if null."
  type        = string
  default     = null
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      team        = "graphs"
      cost-centre = "inference"
    }
  }
}

resource "aws_sns_topic" "alarms" {
  #checkov:skip=CKV_AWS_26:Alarm messages contain names of functions and metrics, no secrets.
  name = "graphs-alarms"
}

module "fsd" {
  source = "../.."

  name          = "graphs"
  bucket_prefix = "graphs-inference"
  tags          = { service = "fsd" }

  lanes         = 4
  ranks         = 64
  longest_run_s = 1800

  run_buckets   = 4
  expire_days   = 2
  force_destroy = true # example stacks are disposable

  image_uri            = var.image_uri
  images_kept          = 20
  force_delete         = true
  architecture         = "x86_64"
  memory_sizes         = [1769, 3538, 10240]
  timeout_s            = 900
  ephemeral_storage_mb = 2048
  reserved_concurrency = 200

  iam_path             = "/graphs/"
  permissions_boundary = var.permissions_boundary
  kms_key_create       = true

  log_retention_days = 30
  metrics            = true
  alarms             = true
  alarm_actions      = [aws_sns_topic.alarms.arn]
  dashboard          = true
}

# The role of a program that uses the stack, with the stack's caller policy attached.
resource "aws_iam_role" "program" {
  name = "graphs-program"
  path = "/graphs/"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "program" {
  role       = aws_iam_role.program.name
  policy_arn = module.fsd.caller_policy_arn
}

output "repository_url" {
  description = "URL of the image repository to push to."
  value       = module.fsd.repository_url
}

output "stack_json" {
  description = "Description of the stack for `fsd infer --stack`."
  value       = module.fsd.stack_json
}
