resource "aws_ecr_repository" "this" {
  #checkov:skip=CKV_AWS_136:ECR's own keys encrypt images unless kms_key_create or kms_key_arn is set.
  count = var.package_type == "image" ? 1 : 0

  name                 = var.name
  image_tag_mutability = "IMMUTABLE"
  force_delete         = var.force_delete
  tags                 = var.tags

  image_scanning_configuration {
    scan_on_push = true
  }
  encryption_configuration {
    encryption_type = local.has_key ? "KMS" : "AES256"
    kms_key         = local.key_arn
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  count      = var.package_type == "image" ? 1 : 0
  repository = aws_ecr_repository.this[0].name

  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "keep the newest"
      selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = var.images_kept }
      action       = { type = "expire" }
    }]
  })
}

# Lambda would otherwise add this policy itself, unknown to Terraform.
resource "aws_ecr_repository_policy" "this" {
  count      = var.package_type == "image" ? 1 : 0
  repository = aws_ecr_repository.this[0].name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "LambdaECRImageRetrievalPolicy"
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      Condition = { StringLike = { "aws:sourceArn" = "${local.lambda_arn}:${var.name}-*" } }
    }]
  })
}
