# A stack with functions from a zip file, without Docker or a registry. It has no queues and supports no queue channel.

terraform {
  required_version = ">= 1.7"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7"
    }
  }
}

variable "zip_path" {
  description = "Path of the zip file built by `fsd package zip`; if null, everything but the functions is created."
  type        = string
  default     = null
}

provider "aws" {}

module "fsd" {
  source = "../.."

  name          = "fsd-zip"
  lanes         = 0
  package_type  = "zip"
  zip_path      = var.zip_path
  zip_runtime   = "python3.13"
  force_destroy = true # example stacks are disposable
}

output "stack_json" {
  description = "Description of the stack for `fsd infer --stack`."
  value       = module.fsd.stack_json
}
