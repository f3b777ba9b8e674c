# Every option, switched on (or off, where it is on by default).

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

run "custom_domain" {
  command = apply

  variables {
    aliases              = ["packages.example.com", "*.devices.example.com"]
    certificate_arn      = "arn:aws:acm:us-east-1:123456789012:certificate/c"
    hsts_max_age_seconds = 31536000
  }

  assert {
    condition     = aws_cloudfront_distribution.cdn.aliases == toset(["packages.example.com", "*.devices.example.com"])
    error_message = "aliases"
  }
  assert {
    condition = (
      one(aws_cloudfront_distribution.cdn.viewer_certificate).acm_certificate_arn == "arn:aws:acm:us-east-1:123456789012:certificate/c" &&
      one(aws_cloudfront_distribution.cdn.viewer_certificate).minimum_protocol_version == "TLSv1.2_2021" &&
      one(aws_cloudfront_distribution.cdn.viewer_certificate).ssl_support_method == "sni-only" &&
      !one(aws_cloudfront_distribution.cdn.viewer_certificate).cloudfront_default_certificate
    )
    error_message = "certificate"
  }
  assert {
    condition     = output.url == "https://packages.example.com" && one(aws_lambda_function.builder.environment).variables["PRECAST_BASE_URL"] == "https://packages.example.com"
    error_message = "URLs do not have the first alias."
  }
  assert {
    condition     = one(one(aws_cloudfront_response_headers_policy.security.security_headers_config).strict_transport_security).access_control_max_age_sec == 31536000
    error_message = "HSTS"
  }
}

run "edge_options" {
  command = apply

  variables {
    web_acl_arn             = "arn:aws:wafv2:us-east-1:123456789012:global/webacl/w/1"
    origin_shield_region    = "eu-west-1"
    access_logs             = { bucket = "logs.s3.amazonaws.com" }
    price_class             = "PriceClass_All"
    package_max_ttl_seconds = 20
    edge_runtime            = "nodejs20.x"
    edge_memory_mb          = 512
  }

  assert {
    condition     = aws_cloudfront_distribution.cdn.web_acl_id == "arn:aws:wafv2:us-east-1:123456789012:global/webacl/w/1"
    error_message = "WAF"
  }
  assert {
    condition     = alltrue([for o in aws_cloudfront_distribution.cdn.origin : one(o.origin_shield).enabled && one(o.origin_shield).origin_shield_region == "eu-west-1"])
    error_message = "Origin Shield"
  }
  assert {
    condition     = one(aws_cloudfront_distribution.cdn.logging_config).bucket == "logs.s3.amazonaws.com" && one(aws_cloudfront_distribution.cdn.logging_config).prefix == "precast/"
    error_message = "access logs"
  }
  assert {
    condition     = aws_cloudfront_distribution.cdn.price_class == "PriceClass_All"
    error_message = "price class"
  }
  assert {
    condition     = aws_cloudfront_cache_policy.package.default_ttl == 20 && aws_cloudfront_cache_policy.package.max_ttl == 20
    error_message = "TTLs"
  }
  assert {
    condition     = aws_lambda_function.edge.runtime == "nodejs20.x" && aws_lambda_function.edge.memory_size == 512
    error_message = "edge function"
  }
}

run "storage_options" {
  command = apply

  variables {
    name                    = "other"
    bucket_name             = "a-bucket"
    bucket_kms_key_arn      = "arn:aws:kms:eu-west-1:123456789012:key/k"
    bucket_versioning       = false
    noncurrent_version_days = 3
    plan_retention_days     = 60
    bucket_access_logs      = { bucket = "logs" }
    deletion_protection     = false
    point_in_time_recovery  = false
    force_destroy           = true
    tags                    = { team = "devices" }
  }

  assert {
    condition     = aws_s3_bucket.store.bucket == "a-bucket" && aws_s3_bucket.store.force_destroy
    error_message = "bucket"
  }
  assert {
    condition = (
      one(one(aws_s3_bucket_server_side_encryption_configuration.store.rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms" &&
      one(one(aws_s3_bucket_server_side_encryption_configuration.store.rule).apply_server_side_encryption_by_default).kms_master_key_id == "arn:aws:kms:eu-west-1:123456789012:key/k" &&
      one(aws_s3_bucket_server_side_encryption_configuration.store.rule).bucket_key_enabled
    )
    error_message = "KMS"
  }
  assert {
    condition     = aws_s3_bucket_versioning.store.versioning_configuration[0].status == "Suspended"
    error_message = "versioning"
  }
  assert {
    condition     = one(aws_s3_bucket_logging.store[*].target_bucket) == "logs" && one(aws_s3_bucket_logging.store[*].target_prefix) == "precast-bucket/"
    error_message = "logging"
  }
  assert {
    condition = (
      one([for r in aws_s3_bucket_lifecycle_configuration.store.rule : one(r.expiration).days if r.id == "plans"]) == 60 &&
      one([for r in aws_s3_bucket_lifecycle_configuration.store.rule : one(r.noncurrent_version_expiration).noncurrent_days if r.id == "noncurrent-versions"]) == 3
    )
    error_message = "lifecycle"
  }
  assert {
    condition     = !aws_dynamodb_table.catalog.deletion_protection_enabled && !aws_dynamodb_table.ledger.deletion_protection_enabled && !one(aws_dynamodb_table.catalog.point_in_time_recovery).enabled
    error_message = "protection"
  }
  assert {
    condition     = aws_dynamodb_table.catalog.tags["team"] == "devices" && aws_dynamodb_table.catalog.tags["installation"] == "other"
    error_message = "tags"
  }
}

run "pipeline_options" {
  command = apply

  variables {
    architecture             = "x86_64"
    stream_window_seconds    = 10
    builder_memory_mb        = 3008
    builder_timeout_seconds  = 600
    builder_storage_mb       = 10240
    builder_max_concurrency  = 4
    max_receive_count        = 8
    composer_memory_mb       = 1024
    composer_timeout_seconds = 60
    reserved_concurrency     = { builder = 4, composer = 20 }
    reconcile_schedule       = "rate(1 hour)"
    verify_schedule          = "cron(0 3 * * ? *)"
    build_settings           = { max_bundles = 500, retain = 0 }
    function_environment     = { GOMEMLIMIT = "1500MiB", PRECAST_OBJECTS = "not this one" }
    metrics_namespace        = "Devices"
    log_retention_days       = 365
    log_level                = "DEBUG"
    tracing                  = true
    alarm_topic_arns         = ["arn:aws:sns:eu-west-1:123456789012:alarms"]
    edge_alarm_topic_arns    = ["arn:aws:sns:us-east-1:123456789012:alarms"]
    alarm_thresholds         = { change_to_servable_seconds = 60 }
  }

  assert {
    condition     = alltrue([for f in [aws_lambda_function.enqueuer, aws_lambda_function.builder, aws_lambda_function.composer] : f.architectures == tolist(["x86_64"]) && endswith(f.filename, "-amd64.zip") && one(f.tracing_config).mode == "Active" && one(f.logging_config).application_log_level == "DEBUG"])
    error_message = "functions"
  }
  assert {
    condition     = aws_sqs_queue.jobs.visibility_timeout_seconds == 3600 && jsondecode(aws_sqs_queue.jobs.redrive_policy).maxReceiveCount == 8
    error_message = "queue"
  }
  assert {
    condition     = aws_lambda_function.builder.memory_size == 3008 && one(aws_lambda_function.builder.ephemeral_storage).size == 10240 && aws_lambda_function.builder.reserved_concurrent_executions == 4
    error_message = "builder"
  }
  assert {
    condition     = aws_lambda_function.composer.memory_size == 1024 && aws_lambda_function.composer.timeout == 60 && aws_lambda_function.composer.reserved_concurrent_executions == 20 && aws_lambda_function.enqueuer.reserved_concurrent_executions == -1
    error_message = "composer"
  }
  assert {
    condition = (
      one(aws_lambda_function.builder.environment).variables["PRECAST_MAX_BUNDLES"] == "500" &&
      one(aws_lambda_function.builder.environment).variables["PRECAST_RETAIN"] == "0" &&
      !contains(keys(one(aws_lambda_function.builder.environment).variables), "PRECAST_MAX_BYTES") &&
      one(aws_lambda_function.builder.environment).variables["PRECAST_METRICS_NAMESPACE"] == "Devices" &&
      one(aws_lambda_function.builder.environment).variables["GOMEMLIMIT"] == "1500MiB" &&
      one(aws_lambda_function.builder.environment).variables["PRECAST_OBJECTS"] == "s3://${aws_s3_bucket.store.id}"
    )
    error_message = "builder's environment"
  }
  assert {
    condition     = output.precast_environment["PRECAST_MAX_BUNDLES"] == "500" && output.precast_environment["PRECAST_RETAIN"] == "0"
    error_message = "precast would plan with other settings than the builder."
  }
  assert {
    condition     = aws_lambda_event_source_mapping.changes.maximum_batching_window_in_seconds == 10 && one(aws_lambda_event_source_mapping.jobs.scaling_config).maximum_concurrency == 4
    error_message = "event sources"
  }
  assert {
    condition     = { for k, s in aws_scheduler_schedule.plan : k => s.schedule_expression } == { reconcile = "rate(1 hour)", verify = "cron(0 3 * * ? *)" }
    error_message = "schedules"
  }
  assert {
    condition     = alltrue([for g in aws_cloudwatch_log_group.function : g.retention_in_days == 365])
    error_message = "retention"
  }
  assert {
    condition = (
      alltrue([for a in aws_cloudwatch_metric_alarm.pipeline : a.alarm_actions == toset(["arn:aws:sns:eu-west-1:123456789012:alarms"]) && a.ok_actions == a.alarm_actions]) &&
      alltrue([for a in aws_cloudwatch_metric_alarm.edge : a.alarm_actions == toset(["arn:aws:sns:us-east-1:123456789012:alarms"]) && a.ok_actions == a.alarm_actions]) &&
      aws_cloudwatch_metric_alarm.pipeline["change-to-servable"].threshold == 60 &&
      aws_cloudwatch_metric_alarm.pipeline["change-to-servable"].namespace == "Devices"
    )
    error_message = "alarms"
  }
}

run "without_verifying" {
  command = apply

  variables {
    verify_schedule = null
  }

  assert {
    condition     = keys(aws_scheduler_schedule.plan) == ["reconcile"]
    error_message = "schedules"
  }
}

run "signed_statements" {
  command = apply

  variables {
    signing_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/k"
  }

  assert {
    condition     = one(aws_lambda_function.composer.environment).variables["PRECAST_SIGNING_KEY"] == "kms:arn:aws:kms:eu-west-1:123456789012:key/k"
    error_message = "The composer does not know the key."
  }
  assert {
    condition = [for s in jsondecode(aws_iam_role_policy.composer.policy).Statement : [s.Action, s.Resource] if s.Sid == "SignStatements"] == [
      [["kms:Sign", "kms:GetPublicKey"], ["arn:aws:kms:eu-west-1:123456789012:key/k"]],
    ]
    error_message = "The composer may not sign, or more."
  }
}
