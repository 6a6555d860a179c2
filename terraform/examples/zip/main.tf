# Functions from a zip file, without Docker and without a registry; object channel only, so that no queue is made.

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
  description = "What `fsd package zip` wrote; null makes everything but the functions."
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
  force_destroy = true # examples are thrown away
}

output "stack_json" {
  description = "What `fsd infer --stack` reads."
  value       = module.fsd.stack_json
}
