# An optional KMS key of the stack. The policy of an existing key (kms_key_arn) needs the statements `Sns` and `Logs`.

locals {
  has_key = var.kms_key_create || var.kms_key_arn != null
  key_arn = var.kms_key_create ? aws_kms_key.this[0].arn : var.kms_key_arn
}

resource "aws_kms_key" "this" {
  count = var.kms_key_create ? 1 : 0

  description             = "Encrypts buckets, topics, queues, logs and functions of stack ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 7
  tags                    = var.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Account" # delegates access control to IAM policies, such as those of the roles
        Effect    = "Allow"
        Principal = { AWS = "arn:${local.partition}:iam::${local.account}:root" }
        Action    = "kms:*"
        Resource  = "*"
      },
      {
        Sid       = "Sns" # delivers to encrypted queues
        Effect    = "Allow"
        Principal = { Service = "sns.amazonaws.com" }
        Action    = ["kms:GenerateDataKey", "kms:Decrypt"]
        Resource  = "*"
        Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
      },
      {
        Sid       = "Logs"
        Effect    = "Allow"
        Principal = { Service = "logs.${local.region}.amazonaws.com" }
        Action    = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:DescribeKey"]
        Resource  = "*"
        Condition = { ArnLike = { "kms:EncryptionContext:aws:logs:arn" = "${local.logs_arn}:/aws/lambda/${var.name}-*" } }
      },
    ]
  })
}

resource "aws_kms_alias" "this" {
  count = var.kms_key_create ? 1 : 0

  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.this[0].key_id
}
