# --- names ------------------------------------------------------------------------------------------------------------

variable "name" {
  description = "Prefix of all resource names; unique per account, because IAM roles are not regional."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 32 characters of a-z, 0-9 and '-', with a letter first and no '-' last."
  }

  validation {
    condition     = !strcontains(var.name, "-lane")
    error_message = "name must not contain '-lane', which follows the stack's name in queue names: the stack with the name before it could use this stack's queues."
  }
}

variable "bucket_prefix" {
  description = "Prefix of the bucket names, which are global across all AWS accounts; `name` if null."
  type        = string
  default     = null

  validation {
    condition     = var.bucket_prefix == null || can(regex("^[a-z0-9][a-z0-9-]{1,30}[a-z0-9]$", var.bucket_prefix))
    error_message = "bucket_prefix must be 3 to 32 characters of a-z, 0-9 and '-', and neither begin nor end with '-'."
  }
}

variable "bucket_namespace" {
  description = "Namespace of the bucket names: global, or account-regional, in which no other account can have them (see README.md)."
  type        = string
  default     = "global"
  nullable    = false

  validation {
    condition     = contains(["global", "account-regional"], var.bucket_namespace)
    error_message = "bucket_namespace must be global or account-regional."
  }
}

variable "tags" {
  description = "Tags of all resources that support them, in addition to the provider's default_tags."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for key in keys(var.tags) : !startswith(lower(key), "aws:") && length(key) >= 1 && length(key) <= 128])
    error_message = "tags must have keys of 1 to 128 characters that do not begin with 'aws:', which AWS reserves."
  }
}

# --- lanes ------------------------------------------------------------------------------------------------------------

variable "lanes" {
  description = "Maximum number of concurrent runs over queues; 0 creates no queues, for the channels object and serial only."
  type        = number
  default     = 2
  nullable    = false

  validation {
    condition     = var.lanes >= 0 && var.lanes <= 100 && floor(var.lanes) == var.lanes
    error_message = "lanes must be a whole number from 0 to 100."
  }
}

variable "ranks" {
  description = "Maximum number of workers of a run over queues, which is the number of queues per lane."
  type        = number
  default     = 16
  nullable    = false

  validation {
    condition     = var.ranks >= 1 && var.ranks <= 10000 && floor(var.ranks) == var.ranks
    error_message = "ranks must be a whole number from 1 to 10000."
  }
}

variable "message_bytes" {
  description = "Maximum message size of topics and queues, in bytes."
  type        = number
  default     = 262144
  nullable    = false

  validation {
    condition     = var.message_bytes >= 2048 && var.message_bytes <= 262144 && floor(var.message_bytes) == var.message_bytes
    error_message = "message_bytes must be a whole number from 2048 to 262144, the largest size that the tested provider allows for a queue."
  }
}

variable "longest_run_s" {
  description = "Longest run, in seconds; the queues' message retention and visibility timeout are 300 s longer."
  type        = number
  default     = 900
  nullable    = false

  validation {
    condition     = var.longest_run_s > 0 && var.longest_run_s <= 42900
    error_message = "longest_run_s must be more than 0 and at most 42900, the longest visibility timeout of queues less 300 s."
  }
}

variable "purge_settle_s" {
  description = "Time that the purge of a queue may take after it was requested, in seconds: 60 on AWS, 0 on emulators."
  type        = number
  default     = 60
  nullable    = false

  validation {
    condition     = var.purge_settle_s >= 0 && var.purge_settle_s <= 3600
    error_message = "purge_settle_s must be from 0 to 3600."
  }
}

variable "publish_quota" {
  description = "Messages that the account may publish to SNS in a second, if AWS has changed this quota; null for the region's default."
  type        = number
  default     = null

  validation {
    condition     = coalesce(var.publish_quota, 1) >= 1 && floor(coalesce(var.publish_quota, 1)) == coalesce(var.publish_quota, 1)
    error_message = "publish_quota must be a whole number of at least 1, or null."
  }
}

# --- buckets ----------------------------------------------------------------------------------------------------------

variable "run_buckets" {
  description = "Number of run buckets; more buckets serve more requests per second."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.run_buckets >= 1 && var.run_buckets <= 20 && floor(var.run_buckets) == var.run_buckets
    error_message = "run_buckets must be a whole number from 1 to 20."
  }
}

variable "expire_days" {
  description = "Days after which objects in the run buckets are deleted."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.expire_days >= 1 && var.expire_days <= 365 && floor(var.expire_days) == var.expire_days
    error_message = "expire_days must be a whole number from 1 to 365."
  }
}

variable "storage_class" {
  description = "Storage class of the run buckets: standard is the only one."
  type        = string
  default     = "standard"
  nullable    = false

  validation {
    condition     = var.storage_class == "standard"
    error_message = "storage_class must be standard. S3 Express One Zone is only modelled, by `fsd advise`: runs need listings in the order of keys, which directory buckets do not give."
  }
}

variable "force_destroy" {
  description = "Whether `terraform destroy` deletes buckets that are not empty."
  type        = bool
  default     = false
  nullable    = false
}

# --- functions --------------------------------------------------------------------------------------------------------

variable "package_type" {
  description = "Deployment package type of the functions: image (a container image in ECR) or zip."
  type        = string
  default     = "image"
  nullable    = false

  validation {
    condition     = contains(["image", "zip"], var.package_type)
    error_message = "package_type must be image or zip."
  }
}

variable "image_uri" {
  description = "Container image of the functions, by digest: REPOSITORY@sha256:...; if empty, everything but the functions is created."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = var.image_uri == "" || can(regex("^[a-z0-9][a-z0-9._/:-]*@sha256:[0-9a-f]{64}$", var.image_uri))
    error_message = "image_uri must be empty or name an image by digest, REPOSITORY@sha256: and 64 hexadecimal digits: a tag could later point to different code than was planned."
  }
}

variable "zip_path" {
  description = "Local path of the functions' zip file, built by `fsd package zip`; if null, everything but the functions is created."
  type        = string
  default     = null

  validation {
    condition     = var.zip_path == null || can(filesha256(var.zip_path))
    error_message = "zip_path must be the path of a readable file."
  }
}

variable "zip_runtime" {
  description = "Lambda runtime for the zip."
  type        = string
  default     = "python3.13"
  nullable    = false

  validation {
    condition     = can(regex("^(python3[.]1[1-9]|provided[.]al2023)$", var.zip_runtime))
    error_message = "zip_runtime must be python3.11 or newer, or provided.al2023 (then the zip must contain its own bootstrap)."
  }
}

variable "architecture" {
  description = "Instruction set architecture for which the package was built: x86_64 or arm64."
  type        = string
  default     = "x86_64"
  nullable    = false

  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "architecture must be x86_64 or arm64."
  }
}

variable "memory_sizes" {
  description = "Memory sizes of the worker functions, in MB, with one function per size; 1,769 MB correspond to one vCPU."
  type        = list(number)
  default     = [1769]
  nullable    = false

  validation {
    condition     = length(var.memory_sizes) >= 1 && length(distinct(var.memory_sizes)) == length(var.memory_sizes)
    error_message = "memory_sizes must list at least one size, and no size twice."
  }

  validation {
    condition     = alltrue([for size in var.memory_sizes : size >= 128 && size <= 10240 && floor(size) == size])
    error_message = "memory_sizes must be whole numbers from 128 to 10240."
  }
}

variable "coordinator_memory_mb" {
  description = "Memory of the coordinator function, in MB."
  type        = number
  default     = 512
  nullable    = false

  validation {
    condition     = var.coordinator_memory_mb >= 128 && var.coordinator_memory_mb <= 10240 && floor(var.coordinator_memory_mb) == var.coordinator_memory_mb
    error_message = "coordinator_memory_mb must be a whole number from 128 to 10240."
  }
}

variable "timeout_s" {
  description = "Timeout of one invocation, in seconds; more than 900 requires a provider that accepts it."
  type        = number
  default     = 900
  nullable    = false

  validation {
    condition     = var.timeout_s >= 1 && var.timeout_s <= 1800 && floor(var.timeout_s) == var.timeout_s
    error_message = "timeout_s must be a whole number from 1 to 1800, Lambda's limit."
  }
}

variable "ephemeral_storage_mb" {
  description = "Size of /tmp of the functions, in MB."
  type        = number
  default     = 512
  nullable    = false

  validation {
    condition     = var.ephemeral_storage_mb >= 512 && var.ephemeral_storage_mb <= 10240 && floor(var.ephemeral_storage_mb) == var.ephemeral_storage_mb
    error_message = "ephemeral_storage_mb must be a whole number from 512 to 10240."
  }
}

variable "reserved_concurrency" {
  description = "Reserved concurrency of each worker function; -1 reserves none."
  type        = number
  default     = -1
  nullable    = false

  validation {
    condition     = var.reserved_concurrency == -1 || (var.reserved_concurrency >= 1 && floor(var.reserved_concurrency) == var.reserved_concurrency)
    error_message = "reserved_concurrency must be -1 or a whole number of at least 1 (0 would stop the functions)."
  }
}

variable "managed_instances" {
  description = "A worker function on Lambda Managed Instances, for networks that fit no other function, paid by the hour, used or not (see README.md); none if null."
  type        = object({ subnet_ids = list(string), security_group_ids = list(string), instance_types = optional(list(string), []), memory_mb = optional(number, 32768), gib_per_vcpu = optional(number, 2), environments = optional(number, 3), max_vcpus = optional(number, 400) })
  default     = null

  validation {
    condition     = try(length(var.managed_instances.subnet_ids) >= 1 && length(var.managed_instances.subnet_ids) <= 16 && alltrue([for id in var.managed_instances.subnet_ids : can(regex("^subnet-[0-9a-z]+$", id))]), var.managed_instances == null)
    error_message = "managed_instances.subnet_ids must be 1 to 16 ids of subnets, subnet-..."
  }

  validation {
    condition     = try(length(var.managed_instances.security_group_ids) >= 1 && length(var.managed_instances.security_group_ids) <= 5 && alltrue([for id in var.managed_instances.security_group_ids : can(regex("^sg-[0-9a-z]+$", id))]), var.managed_instances == null)
    error_message = "managed_instances.security_group_ids must be 1 to 5 ids of security groups, sg-..."
  }

  validation {
    condition     = try(length(var.managed_instances.instance_types) <= 400 && alltrue([for type in var.managed_instances.instance_types : can(regex("^[a-z0-9-]+[.][a-z0-9*-]+$", type))]), var.managed_instances == null)
    error_message = "managed_instances.instance_types must be at most 400 EC2 instance types, such as m7g.4xlarge or m7g.*; leave it out to let Lambda choose."
  }

  validation {
    condition     = try(contains([2, 4, 8], var.managed_instances.gib_per_vcpu), var.managed_instances == null)
    error_message = "managed_instances.gib_per_vcpu must be 2, 4 or 8."
  }

  validation {
    condition     = try(var.managed_instances.memory_mb > 10240 && var.managed_instances.memory_mb <= 32768 && var.managed_instances.memory_mb % (1024 * var.managed_instances.gib_per_vcpu) == 0, var.managed_instances == null)
    error_message = "managed_instances.memory_mb must be a multiple of gib_per_vcpu GiB, more than 10240 (which memory_sizes allows, without instances) and at most 32768."
  }

  validation {
    condition     = try(var.managed_instances.environments >= 1 && var.managed_instances.environments <= 15000 && floor(var.managed_instances.environments) == var.managed_instances.environments, var.managed_instances == null)
    error_message = "managed_instances.environments must be a whole number from 1 to 15000."
  }

  validation {
    condition     = try(var.managed_instances.max_vcpus >= var.managed_instances.environments * var.managed_instances.memory_mb / 1024 / var.managed_instances.gib_per_vcpu && var.managed_instances.max_vcpus <= 15000 && floor(var.managed_instances.max_vcpus) == var.managed_instances.max_vcpus, var.managed_instances == null)
    error_message = "managed_instances.max_vcpus must be a whole number of at least the vCPUs of all environments (environments x memory_mb / 1024 / gib_per_vcpu) and at most 15000."
  }
}

variable "endpoint_url" {
  description = "Endpoint URL of an AWS emulator; null for AWS itself."
  type        = string
  default     = null

  validation {
    condition     = var.endpoint_url == null || can(regex("^https?://[^/]+$", var.endpoint_url))
    error_message = "endpoint_url must be an http or https URL without a path."
  }
}

# --- image repository -------------------------------------------------------------------------------------------------

variable "images_kept" {
  description = "Number of newest images that the repository keeps, which limits how far back a rollback can go."
  type        = number
  default     = 10
  nullable    = false

  validation {
    condition     = var.images_kept >= 2 && var.images_kept <= 1000 && floor(var.images_kept) == var.images_kept
    error_message = "images_kept must be a whole number from 2 to 1000: at least the image in use and one to roll back to."
  }
}

variable "force_delete" {
  description = "Whether `terraform destroy` deletes an image repository that is not empty."
  type        = bool
  default     = false
  nullable    = false
}

# --- permissions ------------------------------------------------------------------------------------------------------

variable "iam_path" {
  description = "IAM path of the roles and the policy."
  type        = string
  default     = "/"
  nullable    = false

  validation {
    condition     = can(regex("^/([A-Za-z0-9+=,.@_-]+/)*$", var.iam_path))
    error_message = "iam_path must begin and end with '/'."
  }
}

variable "permissions_boundary" {
  description = "ARN of the policy that is the roles' permissions boundary; none if null."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary == null || can(regex("^arn:[a-z-]+:iam::([0-9]{12}|aws):policy/", var.permissions_boundary))
    error_message = "permissions_boundary must be the ARN of an IAM policy."
  }
}

variable "kms_key_create" {
  description = "Whether to create a KMS key that encrypts buckets, topics, queues, logs, environment variables and images."
  type        = bool
  default     = false
  nullable    = false
}

variable "kms_key_arn" {
  description = "ARN of an existing KMS key to use instead; its policy must allow SNS and CloudWatch Logs to use it, as in kms.tf."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a KMS key (not of an alias)."
  }
}

# --- observability ----------------------------------------------------------------------------------------------------

variable "log_retention_days" {
  description = "Retention of logs, in days."
  type        = number
  default     = 14
  nullable    = false

  validation {
    condition = contains(
      [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653],
      var.log_retention_days
    )
    error_message = "log_retention_days must be one of the retentions that CloudWatch Logs supports: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653."
  }
}

variable "metrics" {
  description = "Whether workers write CloudWatch metrics: 8 for each channel that is used, billed by the month."
  type        = bool
  default     = true
  nullable    = false
}

variable "alarms" {
  description = "Whether to create alarms for errors, throttles and dropped recursive invocations of each function, and for failure records that no coordinator read."
  type        = bool
  default     = false
  nullable    = false
}

variable "alarm_actions" {
  description = "ARNs of the alarms' actions, for example an SNS topic to notify."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.alarm_actions : startswith(arn, "arn:")])
    error_message = "alarm_actions must be ARNs."
  }
}

variable "dashboard" {
  description = "Whether to create a CloudWatch dashboard."
  type        = bool
  default     = false
  nullable    = false
}
