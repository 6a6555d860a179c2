# The least that a stack needs: a name. The first apply makes everything but the functions; push the image, set image_uri
# and apply again.

terraform {
  required_version = ">= 1.7"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7"
    }
  }
}

variable "image_uri" {
  description = "Image of the functions, by digest."
  type        = string
  default     = ""
}

provider "aws" {}

module "fsd" {
  source = "../.."

  name          = "fsd"
  image_uri     = var.image_uri
  force_destroy = true # examples are thrown away
  force_delete  = true
}

output "repository_url" {
  description = "Where to push the image."
  value       = module.fsd.repository_url
}

output "stack_json" {
  description = "What `fsd infer --stack` reads."
  value       = module.fsd.stack_json
}
