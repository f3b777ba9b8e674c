# Every validation of every variable refuses something. One run tries as many as do not depend on each other.

mock_provider "aws" {
  source = "./tests/mocks"
}

mock_provider "aws" {
  alias  = "us_east_1"
  source = "./tests/mocks"
}

variables {
  packages_dir = "./tests/packages"
}

run "shapes" {
  command = plan

  variables {
    name                     = "Precast"
    architecture             = "arm"
    bucket_name              = "a.b"
    bucket_kms_key_arn       = "alias/precast"
    noncurrent_version_days  = 0
    plan_retention_days      = 14
    bucket_access_logs       = { bucket = "" }
    stream_window_seconds    = 301
    builder_memory_mb        = 128
    builder_timeout_seconds  = 901
    builder_storage_mb       = 511
    max_receive_count        = 4
    build_settings           = { max_bundles = 1.5 }
    function_environment     = { AWS_REGION = "eu-west-1" }
    source_bucket_arns       = ["arn:aws:s3:::releases/*"]
    reconcile_schedule       = "hourly"
    verify_schedule          = "daily"
    composer_memory_mb       = 10241
    composer_timeout_seconds = 1
    edge_runtime             = "nodejs18.x"
    edge_memory_mb           = 64
    package_max_ttl_seconds  = 0
    web_acl_arn              = "arn:aws:wafv2:eu-west-1:123456789012:regional/webacl/w/1"
    price_class              = "PriceClass_300"
    origin_shield_region     = "Ireland"
    access_logs              = { bucket = "logs" }
    hsts_max_age_seconds     = -1
    log_retention_days       = 31
    log_level                = "WARN"
    metrics_namespace        = "AWS/Precast"
    alarm_topic_arns         = ["alarms"]
    edge_alarm_topic_arns    = ["arn:aws:sns:eu-west-1:123456789012:alarms"]
    alarm_thresholds         = { edge_5xx_percent = 0 }
  }

  expect_failures = [
    var.name, var.architecture, var.bucket_name, var.bucket_kms_key_arn, var.noncurrent_version_days,
    var.plan_retention_days, var.bucket_access_logs, var.stream_window_seconds, var.builder_memory_mb,
    var.builder_timeout_seconds, var.builder_storage_mb, var.max_receive_count, var.build_settings,
    var.function_environment, var.source_bucket_arns, var.reconcile_schedule, var.verify_schedule,
    var.composer_memory_mb, var.composer_timeout_seconds, var.edge_runtime, var.edge_memory_mb,
    var.package_max_ttl_seconds, var.web_acl_arn, var.price_class, var.origin_shield_region, var.access_logs,
    var.hsts_max_age_seconds, var.log_retention_days, var.log_level, var.metrics_namespace, var.alarm_topic_arns,
    var.edge_alarm_topic_arns, var.alarm_thresholds,
  ]
}

run "the_other_end" {
  command = plan

  variables {
    packages_dir             = "./tests/packages/"
    name                     = "a-name-of-thirty-three-characters"
    builder_memory_mb        = 10241
    builder_timeout_seconds  = 59
    builder_storage_mb       = 10241
    builder_max_concurrency  = 1
    build_settings           = { retain = -1 }
    function_environment     = { "A-B" = "c" }
    max_receive_count        = 1001
    stream_window_seconds    = -1
    composer_memory_mb       = 128
    composer_timeout_seconds = 901
    edge_memory_mb           = 10241
    package_max_ttl_seconds  = 86401
    metrics_namespace        = "with space"
    certificate_arn          = "arn:aws:acm:eu-west-1:123456789012:certificate/c"
  }

  expect_failures = [
    var.packages_dir, var.name, var.builder_memory_mb, var.builder_timeout_seconds, var.builder_storage_mb,
    var.builder_max_concurrency, var.build_settings, var.function_environment, var.max_receive_count,
    var.stream_window_seconds, var.composer_memory_mb, var.composer_timeout_seconds, var.edge_memory_mb,
    var.package_max_ttl_seconds, var.metrics_namespace, var.certificate_arn,
  ]
}

run "function_switched_off" {
  command = plan

  variables {
    reserved_concurrency = { enqueuer = 0 }
  }

  expect_failures = [var.reserved_concurrency]
}

run "alias_with_scheme" {
  command = plan

  variables {
    aliases         = ["https://packages.example.com"]
    certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/c"
  }

  expect_failures = [var.aliases]
}

run "wildcard_first" {
  command = plan

  variables {
    aliases         = ["*.example.com"]
    certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/c"
  }

  expect_failures = [var.aliases]
}

run "alias_without_certificate" {
  command = plan

  variables {
    aliases = ["packages.example.com"]
  }

  expect_failures = [var.aliases]
}

run "certificate_without_alias" {
  command = plan

  variables {
    certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/c"
  }

  expect_failures = [var.aliases]
}

run "less_reserved_than_polled" {
  command = plan

  variables {
    reserved_concurrency    = { builder = 3 }
    builder_max_concurrency = 4
  }

  expect_failures = [var.reserved_concurrency]
}

run "builder_max_concurrency" {
  command = plan

  variables {
    builder_max_concurrency = 1001
  }

  expect_failures = [var.builder_max_concurrency]
}

run "signing_key_arn" {
  command = plan

  variables {
    signing_key_arn = "alias/precast"
  }

  expect_failures = [var.signing_key_arn]
}

run "build_settings_that_build_nothing" {
  command = plan

  variables {
    build_settings = { max_bytes = 0 }
  }

  expect_failures = [var.build_settings]
}

run "build_settings_that_keep_too_much" {
  command = plan

  variables {
    build_settings = { retain = 17 }
  }

  expect_failures = [var.build_settings]
}

run "concurrency_of_a_job_beyond_the_limit" {
  command = plan

  variables {
    build_settings = { concurrency = 1001 }
  }

  expect_failures = [var.build_settings]
}

run "period_by_its_old_name" {
  command = plan

  variables {
    function_environment = { STATEMENT_PERIOD = "1h" }
  }

  expect_failures = [var.function_environment]
}

run "period_that_the_edge_does_not_know" {
  command = plan

  variables {
    function_environment = { PRECAST_STATEMENT_PERIOD = "1h" }
  }

  expect_failures = [var.function_environment]
}

run "name_of_lambda" {
  command = plan

  variables {
    function_environment = { LAMBDA_TASK_ROOT = "/tmp" }
  }

  expect_failures = [var.function_environment]
}
