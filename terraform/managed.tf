# One more worker function, on Lambda Managed Instances: EC2 instances that Lambda runs in a VPC of the account.
#
# CloudFormation makes it, because AWS providers before 6.24 have no resource for its instances.

locals {
  has_managed   = var.managed_instances != null
  managed_sizes = local.has_managed ? [var.managed_instances.memory_mb] : []
  managed_name  = local.has_managed ? "${var.name}-worker-${var.managed_instances.memory_mb}" : null
  operator_name = "${var.name}-operator"
  published     = "$LATEST.PUBLISHED" # CloudFormation publishes this version; of such a function no other can be invoked

  # For stack.json. Lambda starts no environments when invocations arrive, hence always as many as can be used.
  managed_workers = [
    for size in local.managed_sizes : {
      memory_mb = size
      arn       = "${local.lambda_arn}:${local.managed_name}:${local.published}"
      managed = {
        environments = var.managed_instances.environments
        vcpus        = local.managed_vcpus
      }
    }
  ]
  managed_vcpus = local.has_managed ? floor(var.managed_instances.memory_mb / 1024 / var.managed_instances.gib_per_vcpu) : 0

  managed_properties = local.has_managed ? {
    instances = {
      VpcConfig = {
        SubnetIds        = var.managed_instances.subnet_ids
        SecurityGroupIds = var.managed_instances.security_group_ids
      }
      PermissionsConfig = { CapacityProviderOperatorRoleArn = aws_iam_role.operator[0].arn }
      InstanceRequirements = merge(
        { Architectures = [var.architecture] },
        length(var.managed_instances.instance_types) == 0 ? {} : { AllowedInstanceTypes = var.managed_instances.instance_types },
      )
      CapacityProviderScalingConfig = { ScalingMode = "Auto", MaxVCpuCount = var.managed_instances.max_vcpus }
      TelemetryConfig               = { LoggingConfig = { LogGroup = aws_cloudwatch_log_group.instances[0].name } }
    }
    worker = {
      FunctionName     = local.managed_name
      PackageType      = local.managed_package_type
      Description      = "FSD-Inference: worker with ${var.managed_instances.memory_mb} MB on Managed Instances, which runs one rank of a run"
      Role             = aws_iam_role.worker.arn
      Architectures    = [var.architecture]
      MemorySize       = var.managed_instances.memory_mb
      Timeout          = var.timeout_s # of the coordinator too, without which a run does not last
      Environment      = { Variables = local.environment }
      EphemeralStorage = { Size = var.ephemeral_storage_mb }
      LoggingConfig    = { LogFormat = "JSON", LogGroup = aws_cloudwatch_log_group.function[local.managed_name].name } # it has no other format
      CapacityProviderConfig = {
        LambdaManagedInstancesCapacityProviderConfig = {
          CapacityProviderArn                   = { "Fn::GetAtt" = ["Instances", "Arn"] }
          ExecutionEnvironmentMemoryGiBPerVCpu  = var.managed_instances.gib_per_vcpu
          PerExecutionEnvironmentMaxConcurrency = 1 # a rank uses all processors and nearly all memory
        }
      }
      FunctionScalingConfig = {
        MinExecutionEnvironments = var.managed_instances.environments
        MaxExecutionEnvironments = var.managed_instances.environments
      }
      PublishToLatestPublished = true
    }
  } : null

  managed_package = {
    Zip = {
      Runtime = var.zip_runtime
      Handler = local.worker_handler
      Code    = { S3Bucket = one(aws_s3_object.zip[*].bucket), S3Key = one(aws_s3_object.zip[*].key) }
    }
    Image = {
      ImageConfig = { Command = [local.worker_handler] }
      Code        = { ImageUri = var.image_uri }
    }
  }[local.managed_package_type]
  managed_package_type = local.is_zip ? "Zip" : "Image"
  managed_key          = local.has_key ? { KmsKeyArn = local.key_arn } : {}
}

resource "aws_cloudformation_stack" "managed" {
  #checkov:skip=CKV_AWS_124:Terraform follows the stack's events and reports its failure; nothing else changes it.
  count = local.has_managed && local.has_functions ? 1 : 0

  name = "${var.name}-managed-instances"
  tags = var.tags
  template_body = jsonencode({
    Description = "FSD-Inference: worker on Lambda Managed Instances of stack ${var.name}"
    Resources = {
      Instances = {
        Type       = "AWS::Lambda::CapacityProvider"
        Properties = merge(local.managed_properties.instances, local.managed_key)
      }
      Worker = {
        Type       = "AWS::Lambda::Function"
        Properties = merge(local.managed_properties.worker, local.managed_package, local.managed_key)
      }
      WorkerEvents = {
        Type = "AWS::Lambda::EventInvokeConfig"
        Properties = {
          FunctionName             = { Ref = "Worker" }
          Qualifier                = local.published
          MaximumRetryAttempts     = 0 # as for the other workers
          MaximumEventAgeInSeconds = 60
          DestinationConfig        = { OnFailure = { Destination = aws_sqs_queue.failures.arn } }
        }
      }
    }
  })

  depends_on = [aws_iam_role_policy.worker, aws_iam_role_policy.operator, aws_iam_role_policy_attachment.operator]
}

# What Lambda uses to start instances and to write their logs.
resource "aws_iam_role" "operator" {
  count = local.has_managed ? 1 : 0

  name                 = local.operator_name
  path                 = var.iam_path
  description          = "FSD-Inference: Lambda, which runs the Managed Instances of stack ${var.name}"
  assume_role_policy   = local.assume_lambda
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

# AWS's own policy: its developer guide names it as the least that Lambda needs, and AWS extends it.
resource "aws_iam_role_policy_attachment" "operator" {
  count = local.has_managed ? 1 : 0

  role       = aws_iam_role.operator[0].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AWSLambdaManagedEC2ResourceOperator"
}

# The instances' disks are encrypted with the stack's key, for which EBS asks these rights of who starts them.
resource "aws_iam_role_policy" "operator" {
  count = local.has_managed && local.has_key ? 1 : 0

  name = "disks"
  role = aws_iam_role.operator[0].name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "Key"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo"]
        Resource = [local.key_arn]
      },
      {
        Sid       = "Grants"
        Effect    = "Allow"
        Action    = ["kms:CreateGrant"]
        Resource  = [local.key_arn]
        Condition = { Bool = { "kms:GrantIsForAWSResource" = "true" } }
      },
    ]
  })
}

resource "aws_cloudwatch_log_group" "instances" {
  #checkov:skip=CKV_AWS_158:CloudWatch's own keys encrypt logs unless kms_key_create or kms_key_arn is set.
  #checkov:skip=CKV_AWS_338:These logs serve debugging; log_retention_days sets the retention.
  count = local.has_managed ? 1 : 0

  name              = "/aws/lambda/${var.name}-instances"
  retention_in_days = var.log_retention_days
  kms_key_id        = local.key_arn
  tags              = var.tags
}
