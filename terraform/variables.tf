# --- names ------------------------------------------------------------------------------------------------------------

variable "name" {
  description = "What all names begin with; one stack of a name an account, since roles belong to no region."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 32 of a-z, 0-9 and '-', a letter first and no '-' last."
  }

  validation {
    condition     = !strcontains(var.name, "-lane")
    error_message = "name must not contain '-lane', with which the names of queues go on: a stack of the name before it could use them."
  }
}

variable "bucket_prefix" {
  description = "What the names of buckets begin with, which the whole world shares; `name` if null."
  type        = string
  default     = null

  validation {
    condition     = var.bucket_prefix == null || can(regex("^[a-z0-9][a-z0-9-]{1,30}[a-z0-9]$", var.bucket_prefix))
    error_message = "bucket_prefix must be 3 to 32 of a-z, 0-9 and '-', and neither begin nor end with '-'."
  }
}

variable "tags" {
  description = "Tags of all resources that take them, beside the provider's default_tags."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for key in keys(var.tags) : !startswith(lower(key), "aws:") && length(key) >= 1 && length(key) <= 128])
    error_message = "tags must have keys of 1 to 128 characters that do not begin with 'aws:', which AWS keeps for itself."
  }
}

# --- lanes ------------------------------------------------------------------------------------------------------------

variable "lanes" {
  description = "Runs over queues that can go on at once; 0 makes a stack without queues, for the channels object and serial."
  type        = number
  default     = 2
  nullable    = false

  validation {
    condition     = var.lanes >= 0 && var.lanes <= 100 && floor(var.lanes) == var.lanes
    error_message = "lanes must be a whole number from 0 to 100."
  }
}

variable "ranks" {
  description = "The most workers of a run over queues: each lane has as many queues."
  type        = number
  default     = 16
  nullable    = false

  validation {
    condition     = var.ranks >= 1 && var.ranks <= 10000 && floor(var.ranks) == var.ranks
    error_message = "ranks must be a whole number from 1 to 10000."
  }
}

variable "message_bytes" {
  description = "Largest message of topics and queues, in bytes."
  type        = number
  default     = 262144
  nullable    = false

  validation {
    condition     = var.message_bytes >= 2048 && var.message_bytes <= 262144 && floor(var.message_bytes) == var.message_bytes
    error_message = "message_bytes must be a whole number from 2048 to 262144, the most that the tested provider lets a queue have."
  }
}

variable "longest_run_s" {
  description = "Longest run, in seconds; queues keep and hide messages for longer."
  type        = number
  default     = 900
  nullable    = false

  validation {
    condition     = var.longest_run_s > 0 && var.longest_run_s <= 42900
    error_message = "longest_run_s must be more than 0 and at most 42900, which is as long as queues can hide messages."
  }
}

variable "purge_settle_s" {
  description = "How long a purge may go on in a queue after it was asked for, in seconds: 60 on AWS, 0 on emulators."
  type        = number
  default     = 60
  nullable    = false

  validation {
    condition     = var.purge_settle_s >= 0 && var.purge_settle_s <= 3600
    error_message = "purge_settle_s must be from 0 to 3600."
  }
}

# --- buckets ----------------------------------------------------------------------------------------------------------

variable "run_buckets" {
  description = "Buckets of the runs; more of them take more requests a second."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.run_buckets >= 1 && var.run_buckets <= 20 && floor(var.run_buckets) == var.run_buckets
    error_message = "run_buckets must be a whole number from 1 to 20."
  }
}

variable "expire_days" {
  description = "Objects in the buckets of the runs are deleted after so many days."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.expire_days >= 1 && var.expire_days <= 365 && floor(var.expire_days) == var.expire_days
    error_message = "expire_days must be a whole number from 1 to 365."
  }
}

variable "storage_class" {
  description = "Of the buckets of the runs: standard, or express (directory buckets in one availability zone; not on emulators)."
  type        = string
  default     = "standard"
  nullable    = false

  validation {
    condition     = contains(["standard", "express"], var.storage_class)
    error_message = "storage_class must be standard or express."
  }
}

variable "express_zone_id" {
  description = "Availability zone of the buckets of class express, by its id, for example use1-az4."
  type        = string
  default     = null

  validation {
    condition     = var.express_zone_id == null || can(regex("^[a-z0-9]{2,10}-az[0-9]{1,2}$", var.express_zone_id))
    error_message = "express_zone_id must be the id of an availability zone, such as use1-az4 (not its name, such as us-east-1a)."
  }
}

variable "force_destroy" {
  description = "Whether `terraform destroy` deletes buckets that hold objects."
  type        = bool
  default     = false
  nullable    = false
}

# --- functions --------------------------------------------------------------------------------------------------------

variable "package_type" {
  description = "What the functions are made of: image (a container image in ECR) or zip."
  type        = string
  default     = "image"
  nullable    = false

  validation {
    condition     = contains(["image", "zip"], var.package_type)
    error_message = "package_type must be image or zip."
  }
}

variable "image_uri" {
  description = "Image of the functions, by digest: REPOSITORY@sha256:...; empty makes everything but the functions."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = var.image_uri == "" || can(regex("^[a-z0-9][a-z0-9._/:-]*@sha256:[0-9a-f]{64}$", var.image_uri))
    error_message = "image_uri must be empty or name an image by digest, REPOSITORY@sha256: and 64 hexadecimal digits: a tag could come to mean other code than was planned."
  }
}

variable "zip_path" {
  description = "Local zip file of the functions, as `fsd package zip` writes it; null makes everything but the functions."
  type        = string
  default     = null

  validation {
    condition     = var.zip_path == null || can(filesha256(var.zip_path))
    error_message = "zip_path must name a file that can be read."
  }
}

variable "zip_runtime" {
  description = "Lambda runtime of the zip."
  type        = string
  default     = "python3.13"
  nullable    = false

  validation {
    condition     = can(regex("^(python3[.]1[1-9]|provided[.]al2023)$", var.zip_runtime))
    error_message = "zip_runtime must be python3.11 or newer, or provided.al2023 (the zip then brings its own bootstrap)."
  }
}

variable "architecture" {
  description = "Processors that the package was built for: x86_64 or arm64."
  type        = string
  default     = "x86_64"
  nullable    = false

  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "architecture must be x86_64 or arm64."
  }
}

variable "memory_sizes" {
  description = "Memory of the worker functions, in MB, one function a size; 1,769 MB are one processor."
  type        = list(number)
  default     = [1769]
  nullable    = false

  validation {
    condition     = length(var.memory_sizes) >= 1 && length(distinct(var.memory_sizes)) == length(var.memory_sizes)
    error_message = "memory_sizes must list at least one size, and each once."
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
  description = "Longest time of one invocation, in seconds."
  type        = number
  default     = 900
  nullable    = false

  validation {
    condition     = var.timeout_s >= 1 && var.timeout_s <= 900 && floor(var.timeout_s) == var.timeout_s
    error_message = "timeout_s must be a whole number from 1 to 900, Lambda's limit."
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
  description = "Concurrency set apart for each worker function; -1 sets none apart."
  type        = number
  default     = -1
  nullable    = false

  validation {
    condition     = var.reserved_concurrency == -1 || (var.reserved_concurrency >= 1 && floor(var.reserved_concurrency) == var.reserved_concurrency)
    error_message = "reserved_concurrency must be -1 or a whole number of at least 1 (0 would stop the functions)."
  }
}

variable "endpoint_url" {
  description = "Where an emulator of AWS answers; null for AWS itself."
  type        = string
  default     = null

  validation {
    condition     = var.endpoint_url == null || can(regex("^https?://[^/]+$", var.endpoint_url))
    error_message = "endpoint_url must be an http or https URL without a path."
  }
}

# --- image repository -------------------------------------------------------------------------------------------------

variable "images_kept" {
  description = "Images that the repository keeps, the newest: as far back as a rollback can go."
  type        = number
  default     = 10
  nullable    = false

  validation {
    condition     = var.images_kept >= 2 && var.images_kept <= 1000 && floor(var.images_kept) == var.images_kept
    error_message = "images_kept must be a whole number from 2 to 1000: the image in use and one to go back to."
  }
}

variable "force_delete" {
  description = "Whether `terraform destroy` deletes a repository that holds images."
  type        = bool
  default     = false
  nullable    = false
}

# --- rights -----------------------------------------------------------------------------------------------------------

variable "iam_path" {
  description = "Path of roles and policy."
  type        = string
  default     = "/"
  nullable    = false

  validation {
    condition     = can(regex("^/([A-Za-z0-9+=,.@_-]+/)*$", var.iam_path))
    error_message = "iam_path must begin and end with '/'."
  }
}

variable "permissions_boundary" {
  description = "ARN of the policy that bounds the roles; none if null."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary == null || can(regex("^arn:[a-z-]+:iam::([0-9]{12}|aws):policy/", var.permissions_boundary))
    error_message = "permissions_boundary must be the ARN of an IAM policy."
  }
}

variable "kms_key_create" {
  description = "Whether to make a KMS key that encrypts buckets, topics, queues, logs, environments and images."
  type        = bool
  default     = false
  nullable    = false
}

variable "kms_key_arn" {
  description = "ARN of a KMS key to use instead; its policy must let SNS and CloudWatch Logs use it, as kms.tf shows."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a KMS key (not of an alias)."
  }
}

# --- observability ----------------------------------------------------------------------------------------------------

variable "log_retention_days" {
  description = "Days that logs are kept."
  type        = number
  default     = 14
  nullable    = false

  validation {
    condition = contains(
      [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653],
      var.log_retention_days
    )
    error_message = "log_retention_days must be one of the retentions that CloudWatch Logs has: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653."
  }
}

variable "alarms" {
  description = "Whether to make alarms: errors, throttles and dropped recursions of each function, and failures that nobody read."
  type        = bool
  default     = false
  nullable    = false
}

variable "alarm_actions" {
  description = "ARNs of what the alarms tell, for example an SNS topic."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.alarm_actions : startswith(arn, "arn:")])
    error_message = "alarm_actions must be ARNs."
  }
}

variable "dashboard" {
  description = "Whether to make a CloudWatch dashboard."
  type        = bool
  default     = false
  nullable    = false
}
