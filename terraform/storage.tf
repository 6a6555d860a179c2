# Run buckets, whose objects expire, and a network bucket, which stores pushed networks permanently.

resource "aws_s3_bucket" "runs" {
  #checkov:skip=CKV_AWS_18:Access logs would cost more than the runs: each run makes thousands of requests. CloudTrail offers data events.
  #checkov:skip=CKV_AWS_21:Objects of runs are written once and expire; old versions would be billed and never read.
  #checkov:skip=CKV_AWS_144:All contents can be computed again; a copy in another region would double the bill.
  #checkov:skip=CKV_AWS_145:S3's own keys encrypt unless kms_key_create or kms_key_arn is set: each request with a KMS key may be billed.
  #checkov:skip=CKV2_AWS_62:Nothing consumes events of these buckets; ranks poll for the objects that they expect.
  count = var.run_buckets

  bucket        = local.run_bucket_names[count.index]
  force_destroy = var.force_destroy
  tags          = var.tags
}

resource "aws_s3_bucket" "networks" {
  #checkov:skip=CKV_AWS_18:Access logs would need a bucket of their own; CloudTrail offers data events.
  #checkov:skip=CKV_AWS_21:Objects are named by the digest of their content and never change; Terraform can write stack.json again.
  #checkov:skip=CKV_AWS_144:Networks are pushed from the user's files; a copy in another region would double the bill.
  #checkov:skip=CKV_AWS_145:S3's own keys encrypt unless kms_key_create or kms_key_arn is set.
  #checkov:skip=CKV2_AWS_62:Nothing consumes events of this bucket.
  bucket        = local.network_bucket_name
  force_destroy = var.force_destroy
  tags          = var.tags
}

locals {
  tls_only = {
    for name, arn in merge(zipmap(local.run_bucket_names, local.run_bucket_arns), { (local.network_bucket_name) = local.network_bucket_arn }) :
    name => {
      Sid       = "TlsOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [arn, "${arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "runs" {
  count  = var.run_buckets
  bucket = aws_s3_bucket.runs[count.index].bucket

  rule {
    id     = "expire"
    status = "Enabled"

    filter {
      prefix = ""
    }
    expiration {
      days = var.expire_days
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "networks" {
  bucket = aws_s3_bucket.networks.bucket

  rule {
    id     = "expire"
    status = "Enabled"

    filter {
      prefix = ""
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 7 # within which `fsd push` continues an upload
    }
  }
}

resource "aws_s3_bucket_public_access_block" "runs" {
  count  = var.run_buckets
  bucket = aws_s3_bucket.runs[count.index].bucket

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_public_access_block" "networks" {
  bucket = aws_s3_bucket.networks.bucket

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "runs" {
  count  = var.run_buckets
  bucket = aws_s3_bucket.runs[count.index].bucket

  rule {
    bucket_key_enabled = local.has_key # one KMS request serves many objects

    apply_server_side_encryption_by_default {
      sse_algorithm     = local.has_key ? "aws:kms" : "AES256"
      kms_master_key_id = local.key_arn
    }
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "networks" {
  bucket = aws_s3_bucket.networks.bucket

  rule {
    bucket_key_enabled = local.has_key

    apply_server_side_encryption_by_default {
      sse_algorithm     = local.has_key ? "aws:kms" : "AES256"
      kms_master_key_id = local.key_arn
    }
  }
}

resource "aws_s3_bucket_policy" "runs" {
  count  = var.run_buckets
  bucket = aws_s3_bucket.runs[count.index].bucket
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [local.tls_only[local.run_bucket_names[count.index]]]
  })

  depends_on = [aws_s3_bucket_public_access_block.runs] # S3 rejects concurrent changes of a bucket
}

resource "aws_s3_bucket_policy" "networks" {
  bucket = aws_s3_bucket.networks.bucket
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [local.tls_only[local.network_bucket_name]]
  })

  depends_on = [aws_s3_bucket_public_access_block.networks]
}

# The description of the stack, which the functions read.
resource "aws_s3_object" "stack" {
  bucket       = aws_s3_bucket.networks.bucket
  key          = "stack.json"
  content      = local.stack_json
  content_type = "application/json"

  override_provider {
    default_tags {
      tags = {} # S3 allows 10 tags per object; the bucket has all of them
    }
  }

  depends_on = [
    aws_s3_bucket_server_side_encryption_configuration.networks,
    aws_cloudformation_stack.managed, # whose function the description names
  ]
}
