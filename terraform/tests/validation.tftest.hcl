# Tests of the variables' own validations. Each run sets many invalid values at once, because a run takes seconds.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "wrong_1" {
  command = plan

  variables {
    name                  = "ab"
    bucket_prefix         = "Team"
    bucket_namespace      = "account"
    tags                  = { "aws:owner" = "me" }
    lanes                 = -1
    ranks                 = 0
    message_bytes         = 2047
    longest_run_s         = 0
    purge_settle_s        = -1
    publish_quota         = 0
    run_buckets           = 0
    expire_days           = 0
    storage_class         = "express"
    package_type          = "wheel"
    image_uri             = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/fsd:latest"
    zip_path              = "no/such/file.zip"
    zip_runtime           = "python3.9"
    architecture          = "riscv64"
    memory_sizes          = []
    coordinator_memory_mb = 127
    timeout_s             = 0
    ephemeral_storage_mb  = 511
    reserved_concurrency  = 0
    endpoint_url          = "http://127.0.0.1:4566/path"
    images_kept           = 1
    iam_path              = "team"
    permissions_boundary  = "arn:aws:iam::123456789012:role/boundary"
    kms_key_arn           = "arn:aws:kms:eu-west-1:123456789012:alias/key"
    log_retention_days    = 0
    alarm_actions         = ["topic"]
    managed_instances     = { subnet_ids = [], security_group_ids = ["sg-0a"] }
  }

  expect_failures = [
    var.name,
    var.bucket_prefix,
    var.bucket_namespace,
    var.tags,
    var.lanes,
    var.ranks,
    var.message_bytes,
    var.longest_run_s,
    var.purge_settle_s,
    var.publish_quota,
    var.run_buckets,
    var.expire_days,
    var.storage_class,
    var.package_type,
    var.image_uri,
    var.zip_path,
    var.zip_runtime,
    var.architecture,
    var.memory_sizes,
    var.coordinator_memory_mb,
    var.timeout_s,
    var.ephemeral_storage_mb,
    var.reserved_concurrency,
    var.endpoint_url,
    var.images_kept,
    var.iam_path,
    var.permissions_boundary,
    var.kms_key_arn,
    var.log_retention_days,
    var.alarm_actions,
    var.managed_instances,
  ]
}

run "wrong_2" {
  command = plan

  variables {
    name                  = "Fsd"
    bucket_prefix         = "-team"
    lanes                 = 1.5
    ranks                 = 1.5
    message_bytes         = 262145
    longest_run_s         = 42901
    purge_settle_s        = 3601
    publish_quota         = 1.5
    run_buckets           = 21
    expire_days           = 366
    image_uri             = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/fsd@sha256:abc"
    zip_runtime           = "nodejs22.x"
    memory_sizes          = [512, 512]
    coordinator_memory_mb = 10241
    timeout_s             = 1801
    ephemeral_storage_mb  = 10241
    reserved_concurrency  = -2
    endpoint_url          = "ftp://127.0.0.1"
    images_kept           = 1001
    iam_path              = "/team"
    log_retention_days    = 8
    managed_instances     = { subnet_ids = ["subnet-0a"], security_group_ids = ["default"] }
  }

  expect_failures = [
    var.name,
    var.bucket_prefix,
    var.lanes,
    var.ranks,
    var.message_bytes,
    var.longest_run_s,
    var.purge_settle_s,
    var.publish_quota,
    var.run_buckets,
    var.expire_days,
    var.image_uri,
    var.zip_runtime,
    var.memory_sizes,
    var.coordinator_memory_mb,
    var.timeout_s,
    var.ephemeral_storage_mb,
    var.reserved_concurrency,
    var.endpoint_url,
    var.images_kept,
    var.iam_path,
    var.log_retention_days,
    var.managed_instances,
  ]
}

run "wrong_3" {
  command = plan

  variables {
    name                  = "fsd-"
    bucket_prefix         = join("", [for _ in range(33) : "a"])
    lanes                 = 101
    ranks                 = 10001
    message_bytes         = 2048.5
    run_buckets           = 1.5
    expire_days           = 1.5
    memory_sizes          = [127]
    coordinator_memory_mb = 512.5
    timeout_s             = 1.5
    ephemeral_storage_mb  = 512.5
    reserved_concurrency  = 1.5
    images_kept           = 2.5
    managed_instances     = { subnet_ids = ["subnet-0a"], security_group_ids = ["sg-0a"], instance_types = ["metal"] }
  }

  expect_failures = [
    var.name,
    var.bucket_prefix,
    var.lanes,
    var.ranks,
    var.message_bytes,
    var.run_buckets,
    var.expire_days,
    var.memory_sizes,
    var.coordinator_memory_mb,
    var.timeout_s,
    var.ephemeral_storage_mb,
    var.reserved_concurrency,
    var.images_kept,
    var.managed_instances,
  ]
}

run "wrong_4" {
  command = plan

  variables {
    name              = "a23456789012345678901234567890123"
    memory_sizes      = [10241]
    managed_instances = { subnet_ids = ["subnet-0a"], security_group_ids = ["sg-0a"], memory_mb = 30720, gib_per_vcpu = 3 }
  }

  expect_failures = [
    var.name,
    var.memory_sizes,
    var.managed_instances,
  ]
}

run "wrong_5" {
  command = plan

  variables {
    name              = "fsd-lane7"
    memory_sizes      = [512.5]
    managed_instances = { subnet_ids = ["subnet-0a"], security_group_ids = ["sg-0a"], memory_mb = 10240 }
  }

  expect_failures = [
    var.name,
    var.memory_sizes,
    var.managed_instances,
  ]
}

run "wrong_6" {
  command = plan

  variables {
    name              = "fsd"
    managed_instances = { subnet_ids = ["subnet-0a"], security_group_ids = ["sg-0a"], environments = 0 }
  }

  expect_failures = [
    var.managed_instances,
  ]
}

run "wrong_7" {
  command = plan

  variables {
    name              = "fsd"
    managed_instances = { subnet_ids = ["subnet-0a"], security_group_ids = ["sg-0a"], max_vcpus = 47 }
  }

  expect_failures = [
    var.managed_instances,
  ]
}
