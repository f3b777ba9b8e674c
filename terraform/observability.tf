resource "aws_cloudwatch_log_group" "function" {
  #checkov:skip=CKV_AWS_158:encrypted by CloudWatch Logs; there is no secret in them
  #checkov:skip=CKV_AWS_338:log_retention_days sets it
  for_each          = local.functions
  name              = "/aws/lambda/${var.name}-${each.key}"
  retention_in_days = var.log_retention_days
  tags              = local.tags
}

locals {
  # In the region of the pipeline. Metrics of our own: internal/run/lambdas/emf.go.
  alarms = {
    dead-letters = {
      says       = "A job was given up. The builder's log says why; precast status --redrive tries again."
      namespace  = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", statistic = "Maximum"
      dimensions = { QueueName = aws_sqs_queue.dead_letters.name }
      threshold  = 0, period = 60, periods = 1
    }
    held-back = {
      says       = "The catalog has lost more than half of what is published, which stays. precast status says what would be gone; precast unpin --accept-removals publishes it."
      namespace  = local.metrics_namespace, metric = "PlansHeldBack", statistic = "Maximum"
      dimensions = { service = "builder" }
      threshold  = 0, period = 3600, periods = 1 # a plan every 15 minutes: see pipeline.tf
    }
    stream-failures = {
      says       = "Catalog changes could not be enqueued. The next full plan brings them; the enqueuer's log says why."
      namespace  = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", statistic = "Maximum"
      dimensions = { QueueName = aws_sqs_queue.stream_failures.name }
      threshold  = 0, period = 60, periods = 1
    }
    change-to-servable = {
      says       = "It takes long until a change of the catalog is published."
      namespace  = local.metrics_namespace, metric = "ChangeToServableSeconds", statistic = "Maximum"
      dimensions = { service = "builder" }
      threshold  = var.alarm_thresholds.change_to_servable_seconds, period = 300, periods = 1
    }
    stream-age = {
      says       = "Catalog changes wait for the enqueuer."
      namespace  = "AWS/Lambda", metric = "IteratorAge", statistic = "Maximum"
      dimensions = { FunctionName = aws_lambda_function.enqueuer.function_name }
      threshold  = 1000 * var.alarm_thresholds.stream_age_seconds, period = 60, periods = 3 # milliseconds
    }
    oldest-job = {
      says       = "Jobs wait for a builder, or one of them fails again and again."
      namespace  = "AWS/SQS", metric = "ApproximateAgeOfOldestMessage", statistic = "Maximum"
      dimensions = { QueueName = aws_sqs_queue.jobs.name }
      threshold  = var.alarm_thresholds.oldest_job_seconds, period = 300, periods = 1
    }
    builder-errors = {
      says       = "The builder died or ran out of time. Jobs that merely fail are not counted here."
      namespace  = "AWS/Lambda", metric = "Errors", statistic = "Sum"
      dimensions = { FunctionName = aws_lambda_function.builder.function_name }
      threshold  = 0, period = 300, periods = 1
    }
    builder-throttles = {
      says       = "The account has no room for the builder."
      namespace  = "AWS/Lambda", metric = "Throttles", statistic = "Sum"
      dimensions = { FunctionName = aws_lambda_function.builder.function_name }
      threshold  = 0, period = 300, periods = 3
    }
    enqueuer-errors = {
      says       = "The enqueuer failed."
      namespace  = "AWS/Lambda", metric = "Errors", statistic = "Sum"
      dimensions = { FunctionName = aws_lambda_function.enqueuer.function_name }
      threshold  = 0, period = 300, periods = 1
    }
    composer-errors = {
      says       = "The composer failed: devices that need it get 5xx."
      namespace  = "AWS/Lambda", metric = "Errors", statistic = "Sum"
      dimensions = { FunctionName = aws_lambda_function.composer.function_name }
      threshold  = 0, period = 300, periods = 1
    }
    # A function URL says 429 then (https://docs.aws.amazon.com/lambda/latest/dg/urls-configuration.html), which no
    # rate of 5xx shows.
    composer-throttles = {
      says       = "The composer is at its reserved concurrency, or the account has no room for it: devices that need it get 429."
      namespace  = "AWS/Lambda", metric = "Throttles", statistic = "Sum"
      dimensions = { FunctionName = aws_lambda_function.composer.function_name }
      threshold  = 0, period = 300, periods = 1
    }
  }

  distribution_dimensions = { DistributionId = aws_cloudfront_distribution.cdn.id, Region = "Global" }
  request_dimensions      = { FunctionName = aws_cloudfront_function.request.name, Region = "Global" }
  response_dimensions     = { FunctionName = aws_cloudfront_function.response.name, Region = "Global" }

  # CloudFront's metrics are in us-east-1
  # (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/programming-cloudwatch-metrics.html).
  # Those named Lambda... are what the graph of 5xx in its console is made of.
  edge_alarms = {
    edge-5xx = {
      says       = "Devices get 5xx."
      metric     = "5xxErrorRate", statistic = "Average"
      dimensions = local.distribution_dimensions
      threshold  = var.alarm_thresholds.edge_5xx_percent, periods = 2
    }
    edge-lambda-errors = {
      says       = "The Lambda@Edge function failed. Its log is in the region next to the device."
      metric     = "LambdaExecutionError", statistic = "Sum"
      dimensions = local.distribution_dimensions
      threshold  = 0, periods = 1
    }
    edge-lambda-invalid = {
      says       = "The Lambda@Edge function answered what CloudFront does not accept."
      metric     = "LambdaValidationError", statistic = "Sum"
      dimensions = local.distribution_dimensions
      threshold  = 0, periods = 1
    }
    edge-lambda-throttles = {
      says       = "The account has no room for the Lambda@Edge function."
      metric     = "LambdaLimitExceededErrors", statistic = "Sum"
      dimensions = local.distribution_dimensions
      threshold  = 0, periods = 1
    }
    edge-function-errors = {
      says       = "The CloudFront Function for requests failed."
      metric     = "FunctionExecutionErrors", statistic = "Sum"
      dimensions = local.request_dimensions
      threshold  = 0, periods = 1
    }
    edge-function-invalid = {
      says       = "The CloudFront Function for requests answered what CloudFront does not accept."
      metric     = "FunctionValidationErrors", statistic = "Sum"
      dimensions = local.request_dimensions
      threshold  = 0, periods = 1
    }
    edge-response-errors = {
      says       = "The CloudFront Function for answers failed."
      metric     = "FunctionExecutionErrors", statistic = "Sum"
      dimensions = local.response_dimensions
      threshold  = 0, periods = 1
    }
    edge-response-invalid = {
      says       = "The CloudFront Function for answers made what CloudFront does not accept."
      metric     = "FunctionValidationErrors", statistic = "Sum"
      dimensions = local.response_dimensions
      threshold  = 0, periods = 1
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "pipeline" {
  for_each            = local.alarms
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.says
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  period              = each.value.period
  evaluation_periods  = each.value.periods
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = "notBreaching" # nothing happened
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = local.tags
}

resource "aws_cloudwatch_metric_alarm" "edge" {
  provider            = aws.us_east_1
  for_each            = local.edge_alarms
  alarm_name          = "${local.global_name}-${each.key}"
  alarm_description   = each.value.says
  namespace           = "AWS/CloudFront"
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  period              = 300
  evaluation_periods  = each.value.periods
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.threshold
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.edge_alarm_topic_arns
  ok_actions          = var.edge_alarm_topic_arns
  tags                = local.tags
}

locals {
  # One graph: title, region, statistic, and its lines as [namespace, metric, dimension, value, ...].
  graphs = [
    {
      title = "From a change to its publish (s)", region = local.region, stat = "Maximum"
      metrics = [
        [local.metrics_namespace, "ChangeToServableSeconds", "service", "builder"],
      ]
    },
    {
      title = "Publishes, rejected items", region = local.region, stat = "Sum"
      metrics = [
        [local.metrics_namespace, "Publishes", "service", "builder"],
        [local.metrics_namespace, "ItemsRejected", "service", "builder"],
      ]
    },
    {
      title = "Built", region = local.region, stat = "Sum"
      metrics = [
        [local.metrics_namespace, "BundlesPlanned", "service", "builder"],
        [local.metrics_namespace, "ObjectsWritten", "service", "builder"],
      ]
    },
    {
      title = "Jobs", region = local.region, stat = "Maximum"
      metrics = [
        ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.jobs.name],
        ["AWS/SQS", "ApproximateNumberOfMessagesNotVisible", "QueueName", aws_sqs_queue.jobs.name],
        ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.dead_letters.name],
        ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.stream_failures.name],
      ]
    },
    {
      title = "Age of the changes that the enqueuer reads (ms)", region = local.region, stat = "Maximum"
      metrics = [
        ["AWS/Lambda", "IteratorAge", "FunctionName", aws_lambda_function.enqueuer.function_name],
      ]
    },
    {
      title = "Builder", region = local.region, stat = "Sum"
      metrics = [
        ["AWS/Lambda", "Invocations", "FunctionName", aws_lambda_function.builder.function_name],
        ["AWS/Lambda", "Errors", "FunctionName", aws_lambda_function.builder.function_name],
        ["AWS/Lambda", "Throttles", "FunctionName", aws_lambda_function.builder.function_name],
      ]
    },
    {
      title = "Composed on request", region = local.region, stat = "Sum"
      metrics = [
        ["AWS/Lambda", "Invocations", "FunctionName", aws_lambda_function.composer.function_name],
        ["AWS/Lambda", "Errors", "FunctionName", aws_lambda_function.composer.function_name],
        ["AWS/Lambda", "Throttles", "FunctionName", aws_lambda_function.composer.function_name],
      ]
    },
    {
      title = "Requests", region = "us-east-1", stat = "Sum"
      metrics = [
        ["AWS/CloudFront", "Requests", "DistributionId", aws_cloudfront_distribution.cdn.id, "Region", "Global"],
      ]
    },
    {
      title = "Errors (%)", region = "us-east-1", stat = "Average"
      metrics = [
        ["AWS/CloudFront", "4xxErrorRate", "DistributionId", aws_cloudfront_distribution.cdn.id, "Region", "Global"],
        ["AWS/CloudFront", "5xxErrorRate", "DistributionId", aws_cloudfront_distribution.cdn.id, "Region", "Global"],
      ]
    },
    {
      title = "Errors of the functions at the edge", region = "us-east-1", stat = "Sum"
      metrics = [
        ["AWS/CloudFront", "LambdaExecutionError", "DistributionId", aws_cloudfront_distribution.cdn.id, "Region", "Global"],
        ["AWS/CloudFront", "LambdaValidationError", "DistributionId", aws_cloudfront_distribution.cdn.id, "Region", "Global"],
        ["AWS/CloudFront", "LambdaLimitExceededErrors", "DistributionId", aws_cloudfront_distribution.cdn.id, "Region", "Global"],
        ["AWS/CloudFront", "FunctionExecutionErrors", "FunctionName", aws_cloudfront_function.request.name, "Region", "Global"],
        ["AWS/CloudFront", "FunctionValidationErrors", "FunctionName", aws_cloudfront_function.request.name, "Region", "Global"],
        ["AWS/CloudFront", "FunctionExecutionErrors", "FunctionName", aws_cloudfront_function.response.name, "Region", "Global"],
        ["AWS/CloudFront", "FunctionValidationErrors", "FunctionName", aws_cloudfront_function.response.name, "Region", "Global"],
      ]
    },
  ]
}

resource "aws_cloudwatch_dashboard" "precast" {
  dashboard_name = local.global_name
  dashboard_body = jsonencode({
    widgets = [
      for i, g in local.graphs : {
        type   = "metric"
        x      = 12 * (i % 2)
        y      = 6 * floor(i / 2)
        width  = 12
        height = 6
        properties = {
          title   = g.title
          region  = g.region
          stat    = g.stat
          period  = 300
          metrics = g.metrics
        }
      }
    ]
  })
}
