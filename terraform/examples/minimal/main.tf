# A minimal stack, which needs only a name. The first apply creates everything but the functions; then push the image, set
# image_uri and apply again.

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
  description = "Container image of the functions, by digest."
  type        = string
  default     = ""
}

provider "aws" {}

module "fsd" {
  source = "../.."

  name          = "fsd"
  image_uri     = var.image_uri
  force_destroy = true # example stacks are disposable
  force_delete  = true
}

output "repository_url" {
  description = "URL of the image repository to push to."
  value       = module.fsd.repository_url
}

output "stack_json" {
  description = "Description of the stack for `fsd infer --stack`."
  value       = module.fsd.stack_json
}
