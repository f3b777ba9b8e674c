# What the module makes of its defaults, without AWS: the providers are mocked.

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

run "names" {
  command = apply

  assert {
    condition     = aws_s3_bucket.store.bucket == "precast-123456789012-eu-west-1"
    error_message = "bucket: ${aws_s3_bucket.store.bucket}"
  }
  assert {
    condition     = aws_dynamodb_table.catalog.name == "precast-catalog" && aws_dynamodb_table.ledger.name == "precast-ledger"
    error_message = "table names"
  }
  assert {
    condition = toset([for f in [aws_lambda_function.enqueuer, aws_lambda_function.builder, aws_lambda_function.composer, aws_lambda_function.edge] : f.function_name]) == toset([
    "precast-enqueuer", "precast-builder", "precast-composer", "precast-eu-west-1-edge"])
    error_message = "function names"
  }
  assert {
    condition     = alltrue([for name in [aws_cloudfront_cache_policy.package.name, aws_cloudfront_function.request.name, aws_cloudfront_key_value_store.rollouts.name, aws_cloudfront_origin_access_control.store.name, aws_iam_role.edge.name, aws_iam_role.function["builder"].name] : strcontains(name, "eu-west-1")])
    error_message = "What is global must carry the region, or two installations meet."
  }
  assert {
    condition     = alltrue([for r in [aws_s3_bucket.store, aws_dynamodb_table.catalog, aws_sqs_queue.jobs, aws_lambda_function.edge, aws_cloudfront_distribution.cdn] : r.tags["installation"] == "precast"])
    error_message = "tags"
  }
}

run "bucket" {
  command = apply

  assert {
    condition     = alltrue([for v in [aws_s3_bucket_public_access_block.store.block_public_acls, aws_s3_bucket_public_access_block.store.block_public_policy, aws_s3_bucket_public_access_block.store.ignore_public_acls, aws_s3_bucket_public_access_block.store.restrict_public_buckets] : v])
    error_message = "The bucket is not closed to the public."
  }
  assert {
    condition     = length(jsondecode(aws_s3_bucket_policy.store.policy).Statement) == 2
    error_message = "The bucket policy has another number of statements."
  }
  assert {
    condition = one([for s in jsondecode(aws_s3_bucket_policy.store.policy).Statement : s if s.Effect == "Allow"]) == {
      Sid       = "ReadThroughTheDistribution"
      Effect    = "Allow"
      Principal = { Service = "cloudfront.amazonaws.com" }
      Action    = "s3:GetObject"
      Resource = [
        "arn:aws:s3:::precast/bundles/*", "arn:aws:s3:::precast/manifests/*", "arn:aws:s3:::precast/binaries/*",
        "arn:aws:s3:::precast/keyring", "arn:aws:s3:::precast/keyring.d/*",
      ]
      Condition = { StringEquals = { "AWS:SourceArn" = "arn:aws:cloudfront::123456789012:distribution/EDISTRIBUTION" } }
    }
    error_message = "The bucket policy allows something else."
  }
  assert {
    condition = one([for s in jsondecode(aws_s3_bucket_policy.store.policy).Statement : s if s.Effect == "Deny"]) == {
      Sid       = "OnlyTLS"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = ["arn:aws:s3:::precast", "arn:aws:s3:::precast/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }
    error_message = "The bucket policy does not refuse what comes without TLS."
  }
  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.store.rule).apply_server_side_encryption_by_default).sse_algorithm == "AES256"
    error_message = "encryption"
  }
  assert {
    condition     = aws_s3_bucket_versioning.store.versioning_configuration[0].status == "Enabled" && length(aws_s3_bucket_logging.store) == 0
    error_message = "versioning, logging"
  }
  assert {
    condition = alltrue([for r in aws_s3_bucket_lifecycle_configuration.store.rule :
      length(r.expiration) == 0 ? true : (r.id == "plans" ? r.filter[0].prefix == "plans/" && r.expiration[0].days == 30 : r.expiration[0].days == null || r.expiration[0].days == 0)
    ])
    error_message = "A rule expires more than plans."
  }
  assert {
    condition     = one([for r in aws_s3_bucket_lifecycle_configuration.store.rule : one(r.abort_incomplete_multipart_upload).days_after_initiation if r.id == "incomplete-uploads"]) == 1
    error_message = "Incomplete uploads stay."
  }
}

run "tables" {
  command = apply

  assert {
    condition     = aws_dynamodb_table.catalog.hash_key == "app" && aws_dynamodb_table.catalog.range_key == "env" && aws_dynamodb_table.ledger.hash_key == "id" && aws_dynamodb_table.ledger.range_key == null
    error_message = "keys"
  }
  assert {
    condition     = aws_dynamodb_table.catalog.billing_mode == "PAY_PER_REQUEST" && aws_dynamodb_table.ledger.billing_mode == "PAY_PER_REQUEST"
    error_message = "billing"
  }
  assert {
    condition     = aws_dynamodb_table.catalog.stream_enabled && aws_dynamodb_table.catalog.stream_view_type == "NEW_AND_OLD_IMAGES"
    error_message = "stream"
  }
  assert {
    condition     = one(aws_dynamodb_table.ledger.ttl).enabled && one(aws_dynamodb_table.ledger.ttl).attribute_name == "expires"
    error_message = "TTL"
  }
  assert {
    condition     = aws_dynamodb_table.catalog.deletion_protection_enabled && aws_dynamodb_table.ledger.deletion_protection_enabled && one(aws_dynamodb_table.catalog.point_in_time_recovery).enabled
    error_message = "protection"
  }
}

run "queues" {
  command = apply

  assert {
    condition     = aws_sqs_queue.jobs.visibility_timeout_seconds >= 6 * aws_lambda_function.builder.timeout
    error_message = "Jobs come back while they are being done."
  }
  assert {
    condition     = aws_sqs_queue.jobs.receive_wait_time_seconds == 0 && aws_sqs_queue.dead_letters.receive_wait_time_seconds == 0
    error_message = "The driver relies on a wait of 0."
  }
  assert {
    condition     = alltrue([for q in [aws_sqs_queue.jobs, aws_sqs_queue.dead_letters, aws_sqs_queue.stream_failures] : q.sqs_managed_sse_enabled])
    error_message = "encryption"
  }
  assert {
    condition     = jsondecode(aws_sqs_queue.jobs.redrive_policy) == { deadLetterTargetArn = aws_sqs_queue.dead_letters.arn, maxReceiveCount = 5 }
    error_message = "redrive"
  }
  assert {
    condition     = jsondecode(aws_sqs_queue_redrive_allow_policy.dead_letters.redrive_allow_policy).sourceQueueArns == [aws_sqs_queue.jobs.arn]
    error_message = "Other queues may use the dead letters."
  }
  assert {
    condition     = aws_sqs_queue.dead_letters.message_retention_seconds > aws_sqs_queue.jobs.message_retention_seconds
    error_message = "Dead letters are kept from when the job was first sent: they need longer."
  }
}

run "functions" {
  command = apply

  assert {
    condition     = alltrue([for f in [aws_lambda_function.enqueuer, aws_lambda_function.builder, aws_lambda_function.composer] : f.runtime == "provided.al2023" && f.handler == "bootstrap" && f.architectures == tolist(["arm64"]) && endswith(f.filename, "-arm64.zip") && f.reserved_concurrent_executions == -1])
    error_message = "functions in the region"
  }
  assert {
    condition     = alltrue([for f in [aws_lambda_function.enqueuer, aws_lambda_function.builder, aws_lambda_function.composer] : one(f.logging_config).log_format == "JSON" && one(f.tracing_config).mode == "PassThrough"])
    error_message = "logs, traces"
  }
  assert {
    condition     = alltrue([for g in aws_cloudwatch_log_group.function : g.retention_in_days == 30])
    error_message = "retention"
  }
  assert {
    condition     = aws_lambda_function.builder.memory_size == 1769 && aws_lambda_function.builder.timeout == 900
    error_message = "builder"
  }
  assert {
    condition     = [for f in [aws_lambda_function.enqueuer, aws_lambda_function.composer, aws_lambda_function.edge] : [f.memory_size, f.timeout]] == [[256, 30], [1769, 300], [256, 5]]
    error_message = "memory, timeouts"
  }
  assert {
    condition     = sort(keys(one(aws_lambda_function.builder.environment).variables)) == tolist(["PRECAST_BASE_URL", "PRECAST_CATALOG", "PRECAST_DISTRIBUTION", "PRECAST_KEY_VALUE_STORE", "PRECAST_LEDGER", "PRECAST_METRICS_NAMESPACE", "PRECAST_OBJECTS", "PRECAST_QUEUE"])
    error_message = "builder's environment"
  }
  assert {
    condition     = one(aws_lambda_function.builder.environment).variables["PRECAST_BASE_URL"] == "https://d111111abcdef8.cloudfront.net" && one(aws_lambda_function.builder.environment).variables["PRECAST_METRICS_NAMESPACE"] == "Precast/precast"
    error_message = "builder's environment"
  }
  assert {
    condition     = sort(keys(one(aws_lambda_function.enqueuer.environment).variables)) == tolist(["PRECAST_DEAD_LETTERS", "PRECAST_LEDGER", "PRECAST_METRICS_NAMESPACE", "PRECAST_QUEUE"])
    error_message = "enqueuer's environment"
  }
  assert {
    condition     = one(aws_lambda_function.composer.environment).variables == tomap({ PRECAST_OBJECTS = "s3://${aws_s3_bucket.store.id}", PRECAST_QUEUE = aws_sqs_queue.jobs.id })
    error_message = "composer's environment"
  }
  assert {
    condition     = aws_lambda_function.edge.runtime == "nodejs22.x" && aws_lambda_function.edge.architectures == tolist(["x86_64"]) && aws_lambda_function.edge.publish && aws_lambda_function.edge.timeout == 5 && length(aws_lambda_function.edge.environment) == 0
    error_message = "What Lambda@Edge demands."
  }
  assert {
    condition     = aws_lambda_function_url.composer.authorization_type == "AWS_IAM" && aws_lambda_function_url.composer.invoke_mode == "BUFFERED"
    error_message = "function URL"
  }
  assert {
    condition = alltrue([for p in [aws_lambda_permission.composer, aws_lambda_permission.composer_url] :
      p.principal == "cloudfront.amazonaws.com" && p.source_arn == "arn:aws:cloudfront::123456789012:distribution/EDISTRIBUTION"
    ]) && toset([aws_lambda_permission.composer.action, aws_lambda_permission.composer_url.action]) == toset(["lambda:InvokeFunction", "lambda:InvokeFunctionUrl"])
    error_message = "Others than the distribution may invoke the composer, or it may not."
  }
}

run "events" {
  command = apply

  assert {
    condition     = aws_lambda_event_source_mapping.changes.starting_position == "TRIM_HORIZON" && aws_lambda_event_source_mapping.changes.maximum_batching_window_in_seconds == 2 && aws_lambda_event_source_mapping.changes.bisect_batch_on_function_error
    error_message = "stream"
  }
  assert {
    condition     = aws_lambda_event_source_mapping.changes.maximum_retry_attempts > 0 && aws_lambda_event_source_mapping.changes.maximum_record_age_in_seconds > 0
    error_message = "A failing batch would hold up its shard for a day."
  }
  assert {
    condition     = aws_lambda_event_source_mapping.changes.destination_config[0].on_failure[0].destination_arn == aws_sqs_queue.stream_failures.arn
    error_message = "destination"
  }
  assert {
    condition     = jsondecode(one(one(aws_lambda_event_source_mapping.changes.filter_criteria).filter).pattern).eventName == ["INSERT", "MODIFY", "REMOVE"]
    error_message = "filter"
  }
  assert {
    condition     = alltrue([for m in [aws_lambda_event_source_mapping.changes, aws_lambda_event_source_mapping.jobs] : m.function_response_types == toset(["ReportBatchItemFailures"])])
    error_message = "One failure would fail its whole batch."
  }
  assert {
    condition     = one(aws_lambda_event_source_mapping.jobs.scaling_config).maximum_concurrency == 10
    error_message = "concurrency"
  }
  assert {
    condition     = aws_lambda_event_source_mapping.changes.batch_size == 1000 && aws_lambda_event_source_mapping.jobs.batch_size == 2
    error_message = "How many a function gets at a time."
  }
  assert {
    condition     = { for k, s in aws_scheduler_schedule.plan : k => [s.schedule_expression, one(s.target).input] } == { reconcile = ["rate(15 minutes)", "{}"], verify = ["rate(1 day)", "{\"verify\":true}"] }
    error_message = "schedules"
  }
}

run "edge" {
  command = apply

  assert {
    condition = (
      aws_cloudfront_cache_policy.package.parameters_in_cache_key_and_forwarded_to_origin[0].query_strings_config[0].query_string_behavior == "all" &&
      aws_cloudfront_cache_policy.package.parameters_in_cache_key_and_forwarded_to_origin[0].headers_config[0].header_behavior == "whitelist" &&
      aws_cloudfront_cache_policy.package.parameters_in_cache_key_and_forwarded_to_origin[0].headers_config[0].headers[0].items == toset(["X-Precast-Cohort", "X-Precast-Held"]) &&
      aws_cloudfront_cache_policy.package.parameters_in_cache_key_and_forwarded_to_origin[0].cookies_config[0].cookie_behavior == "none" &&
      !aws_cloudfront_cache_policy.package.parameters_in_cache_key_and_forwarded_to_origin[0].enable_accept_encoding_gzip &&
      !aws_cloudfront_cache_policy.package.parameters_in_cache_key_and_forwarded_to_origin[0].enable_accept_encoding_brotli
    )
    error_message = "The cache key of /package is not the query, the cohort and the held tags."
  }
  assert {
    condition     = aws_cloudfront_cache_policy.package.min_ttl == 0 && aws_cloudfront_cache_policy.package.default_ttl == 30 && aws_cloudfront_cache_policy.package.max_ttl == 60 && aws_cloudfront_cache_policy.binaries.max_ttl == 31536000
    error_message = "TTLs"
  }
  assert {
    condition = (
      aws_cloudfront_cache_policy.binaries.parameters_in_cache_key_and_forwarded_to_origin[0].query_strings_config[0].query_string_behavior == "none" &&
      aws_cloudfront_cache_policy.binaries.parameters_in_cache_key_and_forwarded_to_origin[0].headers_config[0].header_behavior == "none"
    )
    error_message = "The cache key of binaries is more than their path."
  }
  assert {
    condition     = [for b in aws_cloudfront_distribution.cdn.ordered_cache_behavior : [b.path_pattern, b.target_origin_id]] == [["/package", "store-then-composer"], ["/binaries/*", "store"]]
    error_message = "behaviours"
  }
  assert {
    condition = alltrue([for b in concat(aws_cloudfront_distribution.cdn.ordered_cache_behavior, aws_cloudfront_distribution.cdn.default_cache_behavior) :
      !b.compress && b.viewer_protocol_policy == "redirect-to-https" && toset(b.allowed_methods) == toset(["GET", "HEAD"]) &&
      contains([for f in b.function_association : f.event_type], "viewer-request")
    ])
    error_message = "A behaviour compresses, takes HTTP, writes, or goes round the function."
  }
  assert {
    condition     = [for b in aws_cloudfront_distribution.cdn.ordered_cache_behavior : [for f in b.lambda_function_association : [f.event_type, f.lambda_arn]]] == [[["origin-request", aws_lambda_function.edge.qualified_arn]], []]
    error_message = "Lambda@Edge"
  }
  assert {
    condition = (
      [for m in one(aws_cloudfront_distribution.cdn.origin_group).member : m.origin_id] == ["store", "composer"] &&
      one(one(aws_cloudfront_distribution.cdn.origin_group).failover_criteria).status_codes == toset([403, 404, 500, 502, 503, 504])
    )
    error_message = "origin group"
  }
  assert {
    condition = alltrue([for o in aws_cloudfront_distribution.cdn.origin :
      { for h in o.custom_header : h.name => h.value } == { "x-precast-bucket" = aws_s3_bucket.store.id, "x-precast-region" = "eu-west-1" }
      && o.origin_access_control_id != "" && length(o.origin_shield) == 0
    ])
    error_message = "An origin lacks its headers or its access control."
  }
  assert {
    condition     = aws_cloudfront_origin_access_control.store.origin_access_control_origin_type == "s3" && aws_cloudfront_origin_access_control.composer.origin_access_control_origin_type == "lambda" && aws_cloudfront_origin_access_control.store.signing_behavior == "always" && aws_cloudfront_origin_access_control.composer.signing_behavior == "always"
    error_message = "origin access control"
  }
  assert {
    condition     = { for e in aws_cloudfront_distribution.cdn.custom_error_response : tostring(e.error_code) => e.error_caching_min_ttl } == { "400" = 10, "404" = 10, "500" = 5, "502" = 5, "503" = 5, "504" = 5 }
    error_message = "errors"
  }
  assert {
    condition     = one([for o in aws_cloudfront_distribution.cdn.origin : o.domain_name if o.origin_id == "composer"]) == "abcdefghijklmnop.lambda-url.eu-west-1.on.aws"
    error_message = "The composer's origin is not the host of its URL."
  }
  assert {
    condition     = alltrue([for o in aws_cloudfront_distribution.cdn.origin : o.connection_attempts == 2 && o.connection_timeout == 5])
    error_message = "How long CloudFront tries to reach an origin."
  }
  assert {
    condition     = one(one([for o in aws_cloudfront_distribution.cdn.origin : o.custom_origin_config if o.origin_id == "composer"])).origin_read_timeout == 60
    error_message = "How long CloudFront waits for the composer."
  }
  assert {
    condition     = one(aws_cloudfront_distribution.cdn.viewer_certificate).cloudfront_default_certificate && length(aws_cloudfront_distribution.cdn.logging_config) == 0 && aws_cloudfront_distribution.cdn.web_acl_id == null && aws_cloudfront_distribution.cdn.is_ipv6_enabled && aws_cloudfront_distribution.cdn.http_version == "http2and3"
    error_message = "distribution"
  }
  assert {
    condition     = length(one(aws_cloudfront_response_headers_policy.security.security_headers_config).strict_transport_security) == 0 && length(aws_cloudfront_response_headers_policy.security.custom_headers_config) == 0
    error_message = "A response headers policy would also change errors: no custom header belongs into it."
  }
  assert {
    condition     = alltrue([for f in [aws_cloudfront_function.request, aws_cloudfront_function.response] : f.runtime == "cloudfront-js-2.0" && f.publish])
    error_message = "CloudFront Functions"
  }
  assert {
    condition = (
      aws_cloudfront_function.request.key_value_store_associations == toset([aws_cloudfront_key_value_store.rollouts.arn]) &&
      try(length(aws_cloudfront_function.response.key_value_store_associations), 0) == 0 &&
      one(aws_lambda_function.builder.environment).variables["PRECAST_KEY_VALUE_STORE"] == aws_cloudfront_key_value_store.rollouts.arn
    )
    error_message = "The function does not read the table that the builder writes."
  }
}

run "alarms" {
  command = apply

  assert {
    condition = { for name, a in aws_cloudwatch_metric_alarm.pipeline : name =>
      "${a.namespace} ${a.metric_name} ${a.statistic} ${jsonencode(a.dimensions)} > ${a.threshold}, ${a.evaluation_periods} x ${a.period} s"
      } == {
      dead-letters       = "AWS/SQS ApproximateNumberOfMessagesVisible Maximum {\"QueueName\":\"precast-dead-letters\"} > 0, 1 x 60 s"
      held-back          = "Precast/precast PlansHeldBack Maximum {\"service\":\"builder\"} > 0, 1 x 3600 s"
      stream-failures    = "AWS/SQS ApproximateNumberOfMessagesVisible Maximum {\"QueueName\":\"precast-stream-failures\"} > 0, 1 x 60 s"
      change-to-servable = "Precast/precast ChangeToServableSeconds Maximum {\"service\":\"builder\"} > 900, 1 x 300 s"
      stream-age         = "AWS/Lambda IteratorAge Maximum {\"FunctionName\":\"precast-enqueuer\"} > 300000, 3 x 60 s"
      oldest-job         = "AWS/SQS ApproximateAgeOfOldestMessage Maximum {\"QueueName\":\"precast-jobs\"} > 3600, 1 x 300 s"
      builder-errors     = "AWS/Lambda Errors Sum {\"FunctionName\":\"precast-builder\"} > 0, 1 x 300 s"
      builder-throttles  = "AWS/Lambda Throttles Sum {\"FunctionName\":\"precast-builder\"} > 0, 3 x 300 s"
      enqueuer-errors    = "AWS/Lambda Errors Sum {\"FunctionName\":\"precast-enqueuer\"} > 0, 1 x 300 s"
      composer-errors    = "AWS/Lambda Errors Sum {\"FunctionName\":\"precast-composer\"} > 0, 1 x 300 s"
      composer-throttles = "AWS/Lambda Throttles Sum {\"FunctionName\":\"precast-composer\"} > 0, 1 x 300 s"
    }
    error_message = "An alarm is missing, or looks elsewhere."
  }
  assert {
    condition = { for name, a in aws_cloudwatch_metric_alarm.edge : name =>
      "${a.namespace} ${a.metric_name} ${a.statistic} ${jsonencode(a.dimensions)} > ${a.threshold}, ${a.evaluation_periods} x ${a.period} s"
      } == {
      edge-5xx              = "AWS/CloudFront 5xxErrorRate Average {\"DistributionId\":\"EDISTRIBUTION\",\"Region\":\"Global\"} > 1, 2 x 300 s"
      edge-lambda-errors    = "AWS/CloudFront LambdaExecutionError Sum {\"DistributionId\":\"EDISTRIBUTION\",\"Region\":\"Global\"} > 0, 1 x 300 s"
      edge-lambda-invalid   = "AWS/CloudFront LambdaValidationError Sum {\"DistributionId\":\"EDISTRIBUTION\",\"Region\":\"Global\"} > 0, 1 x 300 s"
      edge-lambda-throttles = "AWS/CloudFront LambdaLimitExceededErrors Sum {\"DistributionId\":\"EDISTRIBUTION\",\"Region\":\"Global\"} > 0, 1 x 300 s"
      edge-function-errors  = "AWS/CloudFront FunctionExecutionErrors Sum {\"FunctionName\":\"precast-eu-west-1-request\",\"Region\":\"Global\"} > 0, 1 x 300 s"
      edge-function-invalid = "AWS/CloudFront FunctionValidationErrors Sum {\"FunctionName\":\"precast-eu-west-1-request\",\"Region\":\"Global\"} > 0, 1 x 300 s"
      edge-response-errors  = "AWS/CloudFront FunctionExecutionErrors Sum {\"FunctionName\":\"precast-eu-west-1-response\",\"Region\":\"Global\"} > 0, 1 x 300 s"
      edge-response-invalid = "AWS/CloudFront FunctionValidationErrors Sum {\"FunctionName\":\"precast-eu-west-1-response\",\"Region\":\"Global\"} > 0, 1 x 300 s"
    }
    error_message = "An alarm of the edge is missing, or looks elsewhere."
  }
  assert {
    condition     = alltrue([for a in concat(values(aws_cloudwatch_metric_alarm.pipeline), values(aws_cloudwatch_metric_alarm.edge)) : a.treat_missing_data == "notBreaching" && a.comparison_operator == "GreaterThanThreshold"])
    error_message = "alarms"
  }
  assert {
    condition = [for w in jsondecode(aws_cloudwatch_dashboard.precast.dashboard_body).widgets :
      concat(["${w.properties.title}, ${w.properties.region}, ${w.properties.stat}"], [for m in w.properties.metrics : join(" ", m)])
      ] == [
      [
        "From a change to its publish (s), eu-west-1, Maximum",
        "Precast/precast ChangeToServableSeconds service builder",
      ],
      [
        "Publishes, rejected items, eu-west-1, Sum",
        "Precast/precast Publishes service builder",
        "Precast/precast ItemsRejected service builder",
      ],
      [
        "Built, eu-west-1, Sum",
        "Precast/precast BundlesPlanned service builder",
        "Precast/precast ObjectsWritten service builder",
      ],
      [
        "Jobs, eu-west-1, Maximum",
        "AWS/SQS ApproximateNumberOfMessagesVisible QueueName precast-jobs",
        "AWS/SQS ApproximateNumberOfMessagesNotVisible QueueName precast-jobs",
        "AWS/SQS ApproximateNumberOfMessagesVisible QueueName precast-dead-letters",
        "AWS/SQS ApproximateNumberOfMessagesVisible QueueName precast-stream-failures",
      ],
      [
        "Age of the changes that the enqueuer reads (ms), eu-west-1, Maximum",
        "AWS/Lambda IteratorAge FunctionName precast-enqueuer",
      ],
      [
        "Builder, eu-west-1, Sum",
        "AWS/Lambda Invocations FunctionName precast-builder",
        "AWS/Lambda Errors FunctionName precast-builder",
        "AWS/Lambda Throttles FunctionName precast-builder",
      ],
      [
        "Composed on request, eu-west-1, Sum",
        "AWS/Lambda Invocations FunctionName precast-composer",
        "AWS/Lambda Errors FunctionName precast-composer",
        "AWS/Lambda Throttles FunctionName precast-composer",
      ],
      [
        "Requests, us-east-1, Sum",
        "AWS/CloudFront Requests DistributionId EDISTRIBUTION Region Global",
      ],
      [
        "Errors (%), us-east-1, Average",
        "AWS/CloudFront 4xxErrorRate DistributionId EDISTRIBUTION Region Global",
        "AWS/CloudFront 5xxErrorRate DistributionId EDISTRIBUTION Region Global",
      ],
      [
        "Errors of the functions at the edge, us-east-1, Sum",
        "AWS/CloudFront LambdaExecutionError DistributionId EDISTRIBUTION Region Global",
        "AWS/CloudFront LambdaValidationError DistributionId EDISTRIBUTION Region Global",
        "AWS/CloudFront LambdaLimitExceededErrors DistributionId EDISTRIBUTION Region Global",
        "AWS/CloudFront FunctionExecutionErrors FunctionName precast-eu-west-1-request Region Global",
        "AWS/CloudFront FunctionValidationErrors FunctionName precast-eu-west-1-request Region Global",
        "AWS/CloudFront FunctionExecutionErrors FunctionName precast-eu-west-1-response Region Global",
        "AWS/CloudFront FunctionValidationErrors FunctionName precast-eu-west-1-response Region Global",
      ],
    ]
    error_message = "A graph is missing, or shows something else."
  }
}

run "outputs" {
  command = apply

  assert {
    condition     = output.url == "https://d111111abcdef8.cloudfront.net"
    error_message = "url: ${output.url}"
  }
  assert {
    condition     = output.catalog_url == "dynamodb://precast-catalog" && output.ledger_url == "dynamodb://precast-ledger" && output.objects_url == "s3://${aws_s3_bucket.store.id}"
    error_message = "URLs"
  }
  assert {
    condition     = output.precast_environment["PRECAST_QUEUE"] == aws_sqs_queue.jobs.id && output.precast_environment["PRECAST_BASE_URL"] == output.url
    error_message = "environment"
  }
  assert {
    condition     = output.precast_environment["PRECAST_DISTRIBUTION"] == output.distribution_id && output.precast_environment["PRECAST_KEY_VALUE_STORE"] == output.key_value_store_arn && output.key_value_store_arn == aws_cloudfront_key_value_store.rollouts.arn
    error_message = "A rollback would not tell the CDN."
  }
  assert {
    condition     = output.kms_key_statement == null && output.release_manager_policy_arn == null
    error_message = "What was not asked for."
  }
}
