# Tests of the constraints between variables in terraform_data.rules.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name  = "fsd"
  lanes = 0 # fewer resources make the plan faster
}

run "image_uri_with_a_zip" {
  command = plan

  variables {
    package_type = "zip"
    zip_path     = "versions.tf"
    image_uri    = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/fsd@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  }

  expect_failures = [terraform_data.rules]
}

run "zip_path_with_an_image" {
  command = plan

  variables {
    zip_path = "versions.tf"
  }

  expect_failures = [terraform_data.rules]
}

run "image_of_another_region" {
  command = plan

  variables {
    image_uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/fsd@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  }

  expect_failures = [terraform_data.rules]
}

run "timeout_longer_than_a_run" {
  command = plan

  variables {
    longest_run_s = 600
  }

  expect_failures = [terraform_data.rules]
}

run "too_many_queues" {
  command = plan

  variables {
    lanes = 11
    ranks = 1000
  }

  expect_failures = [terraform_data.rules]
}

run "two_keys" {
  command = plan

  variables {
    kms_key_create = true
    kms_key_arn    = "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000"
  }

  expect_failures = [terraform_data.rules]
}

run "actions_without_alarms" {
  command = plan

  variables {
    alarm_actions = ["arn:aws:sns:eu-west-1:123456789012:alarms"]
  }

  expect_failures = [terraform_data.rules]
}

run "managed_instances_of_an_emulator" {
  command = plan

  variables {
    endpoint_url      = "http://127.0.0.1:4566"
    managed_instances = { subnet_ids = ["subnet-0a"], security_group_ids = ["sg-0a"] }
  }

  expect_failures = [terraform_data.rules]
}

run "managed_instances_with_an_old_python" {
  command = plan

  variables {
    package_type      = "zip"
    zip_path          = "versions.tf"
    zip_runtime       = "python3.12"
    managed_instances = { subnet_ids = ["subnet-0a"], security_group_ids = ["sg-0a"] }
  }

  expect_failures = [terraform_data.rules]
}
