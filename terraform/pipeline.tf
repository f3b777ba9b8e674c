locals {
  # As GOARCH has it, which the packages are named by.
  goarch = { arm64 = "arm64", x86_64 = "amd64" }[var.architecture]

  packages = { for f in ["enqueuer", "builder", "composer"] : f => "${var.packages_dir}/${f}-${local.goarch}.zip" }

  metrics_namespace = coalesce(var.metrics_namespace, "Precast/${var.name}")
  base_url          = "https://${local.host}"

  # What is not set is left to the program (internal/run/settings).
  build_environment = { for k, v in var.build_settings : "PRECAST_${upper(k)}" => tostring(v) if v != null }

  # The same for the functions and for `precast`.
  objects_url = "s3://${aws_s3_bucket.store.id}"
  catalog_url = "dynamodb://${aws_dynamodb_table.catalog.name}"
  ledger_url  = "dynamodb://${aws_dynamodb_table.ledger.name}"
}

# --- queues

resource "aws_sqs_queue" "jobs" {
  name                      = "${var.name}-jobs"
  message_retention_seconds = 345600
  sqs_managed_sse_enabled   = true
  tags                      = local.tags

  # Six times the function's timeout, for functions that die
  # (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html). A job that fails is given
  # back after seconds.
  visibility_timeout_seconds = 6 * var.builder_timeout_seconds

  # Must stay 0: internal/store/aws cannot ask for a wait of 0 otherwise, and its long polls say so.
  receive_wait_time_seconds = 0

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letters.arn
    maxReceiveCount     = var.max_receive_count
  })
}

resource "aws_sqs_queue" "dead_letters" {
  name                      = "${var.name}-dead-letters"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
  receive_wait_time_seconds = 0
  tags                      = local.tags
}

resource "aws_sqs_queue_redrive_allow_policy" "dead_letters" {
  queue_url = aws_sqs_queue.dead_letters.id
  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.jobs.arn]
  })
}

# Where Lambda says which stream records it gave up on. Nothing reads it: the next full plan has mended
# what they would have brought. It is there to ring an alarm.
resource "aws_sqs_queue" "stream_failures" {
  name                      = "${var.name}-stream-failures"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
  tags                      = local.tags
}

# --- enqueuer

resource "aws_lambda_function" "enqueuer" {
  #checkov:skip=CKV_AWS_117:it talks to nothing in a VPC
  #checkov:skip=CKV_AWS_272:the packages come from the folder of the user who applies this
  #checkov:skip=CKV_AWS_116:its event source has a destination for failures, its schedule comes again
  #checkov:skip=CKV_AWS_173:its variables are names, not secrets
  function_name                  = "${var.name}-enqueuer"
  description                    = "Precast: a batch of catalog changes becomes one plan job"
  role                           = aws_iam_role.function["enqueuer"].arn
  runtime                        = "provided.al2023"
  handler                        = "bootstrap"
  architectures                  = [var.architecture]
  filename                       = local.packages.enqueuer
  source_code_hash               = filebase64sha256(local.packages.enqueuer)
  memory_size                    = 256
  timeout                        = 30
  reserved_concurrent_executions = var.reserved_concurrency.enqueuer
  tags                           = local.tags
  depends_on                     = [aws_iam_role_policy.enqueuer]

  environment {
    variables = merge(var.function_environment, {
      PRECAST_LEDGER            = local.ledger_url
      PRECAST_QUEUE             = aws_sqs_queue.jobs.id
      PRECAST_DEAD_LETTERS      = aws_sqs_queue.dead_letters.id
      PRECAST_METRICS_NAMESPACE = local.metrics_namespace
    })
  }

  logging_config {
    log_format            = "JSON"
    application_log_level = var.log_level
    log_group             = aws_cloudwatch_log_group.function["enqueuer"].name
  }

  tracing_config {
    mode = var.tracing ? "Active" : "PassThrough"
  }
}

resource "aws_lambda_event_source_mapping" "changes" {
  event_source_arn = aws_dynamodb_table.catalog.stream_arn
  function_name    = aws_lambda_function.enqueuer.arn
  tags             = local.tags

  # A change that was made before this existed counts as well.
  starting_position                  = "TRIM_HORIZON"
  batch_size                         = 1000
  maximum_batching_window_in_seconds = var.stream_window_seconds

  # Without limits a batch that fails holds up its shard for a day
  # (https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-params.html).
  maximum_retry_attempts         = 10
  maximum_record_age_in_seconds  = 3600
  bisect_batch_on_function_error = true
  function_response_types        = ["ReportBatchItemFailures"]

  destination_config {
    on_failure {
      destination_arn = aws_sqs_queue.stream_failures.arn
    }
  }

  # All kinds of changes that there are; another kind, if there ever is one, is nothing to plan for.
  filter_criteria {
    filter {
      pattern = jsonencode({ eventName = ["INSERT", "MODIFY", "REMOVE"] })
    }
  }
}

# --- builder

resource "aws_lambda_function" "builder" {
  #checkov:skip=CKV_AWS_117:it talks to nothing in a VPC
  #checkov:skip=CKV_AWS_272:the packages come from the folder of the user who applies this
  #checkov:skip=CKV_AWS_116:its queue has dead letters
  #checkov:skip=CKV_AWS_173:its variables are names, not secrets
  function_name                  = "${var.name}-builder"
  description                    = "Precast: plans, builds and publishes"
  role                           = aws_iam_role.function["builder"].arn
  runtime                        = "provided.al2023"
  handler                        = "bootstrap"
  architectures                  = [var.architecture]
  filename                       = local.packages.builder
  source_code_hash               = filebase64sha256(local.packages.builder)
  memory_size                    = var.builder_memory_mb
  timeout                        = var.builder_timeout_seconds
  reserved_concurrent_executions = var.reserved_concurrency.builder
  tags                           = local.tags
  depends_on                     = [aws_iam_role_policy.builder]

  ephemeral_storage {
    size = var.builder_storage_mb
  }

  environment {
    variables = merge(var.function_environment, local.build_environment, {
      PRECAST_OBJECTS           = local.objects_url
      PRECAST_CATALOG           = local.catalog_url
      PRECAST_LEDGER            = local.ledger_url
      PRECAST_QUEUE             = aws_sqs_queue.jobs.id
      PRECAST_BASE_URL          = local.base_url
      PRECAST_DISTRIBUTION      = aws_cloudfront_distribution.cdn.id
      PRECAST_KEY_VALUE_STORE   = aws_cloudfront_key_value_store.rollouts.arn
      PRECAST_METRICS_NAMESPACE = local.metrics_namespace
    })
  }

  logging_config {
    log_format            = "JSON"
    application_log_level = var.log_level
    log_group             = aws_cloudwatch_log_group.function["builder"].name
  }

  tracing_config {
    mode = var.tracing ? "Active" : "PassThrough"
  }
}

resource "aws_lambda_event_source_mapping" "jobs" {
  event_source_arn        = aws_sqs_queue.jobs.arn
  function_name           = aws_lambda_function.builder.arn
  function_response_types = ["ReportBatchItemFailures"]
  tags                    = local.tags

  # As many as builder/cmd/builder works on at a time: more would wait for these, invisible to others.
  batch_size = 2

  scaling_config {
    maximum_concurrency = var.builder_max_concurrency
  }
}

# --- composer

resource "aws_lambda_function" "composer" {
  #checkov:skip=CKV_AWS_117:it talks to nothing in a VPC
  #checkov:skip=CKV_AWS_272:the packages come from the folder of the user who applies this
  #checkov:skip=CKV_AWS_116:it answers requests: nobody would come for a dead letter
  #checkov:skip=CKV_AWS_173:its variables are names, not secrets
  function_name                  = "${var.name}-composer"
  description                    = "Precast: composes what was not prebuilt"
  role                           = aws_iam_role.function["composer"].arn
  runtime                        = "provided.al2023"
  handler                        = "bootstrap"
  architectures                  = [var.architecture]
  filename                       = local.packages.composer
  source_code_hash               = filebase64sha256(local.packages.composer)
  memory_size                    = var.composer_memory_mb
  timeout                        = var.composer_timeout_seconds
  reserved_concurrent_executions = var.reserved_concurrency.composer
  tags                           = local.tags
  depends_on                     = [aws_iam_role_policy.composer]

  environment {
    variables = merge(var.function_environment, {
      PRECAST_OBJECTS = local.objects_url
      PRECAST_QUEUE   = aws_sqs_queue.jobs.id
    }, var.signing_key_arn == null ? {} : { PRECAST_SIGNING_KEY = "kms:${var.signing_key_arn}" })
  }

  logging_config {
    log_format            = "JSON"
    application_log_level = var.log_level
    log_group             = aws_cloudwatch_log_group.function["composer"].name
  }

  tracing_config {
    mode = var.tracing ? "Active" : "PassThrough"
  }
}

# Only those who sign their requests and may invoke it get an answer: that is the distribution, below.
resource "aws_lambda_function_url" "composer" {
  function_name      = aws_lambda_function.composer.function_name
  authorization_type = "AWS_IAM"
  # A stream that breaks off looks like a whole answer, and slows down after 6 MB: what is larger than a buffered answer
  # is stored, and S3 sends it (https://docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html).
  invoke_mode = "BUFFERED"
}

# Both are needed
# (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/private-content-restricting-access-to-lambda.html).
resource "aws_lambda_permission" "composer_url" {
  statement_id           = "distribution-url"
  action                 = "lambda:InvokeFunctionUrl"
  function_name          = aws_lambda_function.composer.function_name
  principal              = "cloudfront.amazonaws.com"
  source_arn             = aws_cloudfront_distribution.cdn.arn
  function_url_auth_type = "AWS_IAM"
}

resource "aws_lambda_permission" "composer" {
  statement_id  = "distribution"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.composer.function_name
  principal     = "cloudfront.amazonaws.com"
  source_arn    = aws_cloudfront_distribution.cdn.arn
}

# --- schedules

locals {
  schedules = merge(
    { reconcile = { expression = var.reconcile_schedule, input = {} } },
    var.verify_schedule == null ? {} : { verify = { expression = var.verify_schedule, input = { verify = true } } },
  )
}

resource "aws_scheduler_schedule" "plan" {
  #checkov:skip=CKV_AWS_297:there is nothing in it but {} or {"verify":true}
  for_each            = local.schedules
  name                = "${var.name}-${each.key}"
  description         = "Precast: asks for a full plan"
  schedule_expression = each.value.expression

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_lambda_function.enqueuer.arn
    role_arn = aws_iam_role.schedule.arn
    input    = jsonencode(each.value.input)
    retry_policy {
      # The next one does just the same.
      maximum_retry_attempts       = 2
      maximum_event_age_in_seconds = 300
    }
  }
}
