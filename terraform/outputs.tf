output "url" {
  description = "Where devices ask: `URL/package?cpuArch=...`."
  value       = local.base_url
}

output "distribution_id" {
  description = "ID of the CloudFront distribution."
  value       = aws_cloudfront_distribution.cdn.id
}

output "distribution_domain_name" {
  description = "The distribution's own host name; aliases point to it."
  value       = aws_cloudfront_distribution.cdn.domain_name
}

output "distribution_hosted_zone_id" {
  description = "Route 53 zone of the distribution's own host name, for alias records."
  value       = aws_cloudfront_distribution.cdn.hosted_zone_id
}

output "key_value_store_arn" {
  description = "ARN of the KeyValueStore with the table of rollouts."
  value       = aws_cloudfront_key_value_store.rollouts.arn
}

output "bucket" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.store.id
}

output "catalog_table" {
  description = "Name of the catalog table."
  value       = aws_dynamodb_table.catalog.name
}

output "ledger_table" {
  description = "Name of the ledger table."
  value       = aws_dynamodb_table.ledger.name
}

output "objects_url" {
  description = "The bucket, as `precast --objects` takes it."
  value       = local.objects_url
}

output "catalog_url" {
  description = "The catalog, as `precast --catalog` takes it."
  value       = local.catalog_url
}

output "ledger_url" {
  description = "The ledger, as `precast --ledger` takes it."
  value       = local.ledger_url
}

output "queue_url" {
  description = "The job queue, as `precast --queue` and every AWS tool take it."
  value       = aws_sqs_queue.jobs.id
}

output "dead_letters_url" {
  description = "The dead letters, as `precast --dead-letters` and every AWS tool take them."
  value       = aws_sqs_queue.dead_letters.id
}

output "stream_failures_url" {
  description = "Queue of the stream records that Lambda gave up on."
  value       = aws_sqs_queue.stream_failures.id
}

output "precast_environment" {
  description = "Environment that makes `precast` work on this installation, with the builder's settings."
  value = merge(
    { for k, v in local.build_environment : k => v if !contains(["PRECAST_PART_BYTES", "PRECAST_CONCURRENCY"], k) },
    {
      AWS_REGION              = local.region
      PRECAST_OBJECTS         = local.objects_url
      PRECAST_CATALOG         = local.catalog_url
      PRECAST_LEDGER          = local.ledger_url
      PRECAST_QUEUE           = aws_sqs_queue.jobs.id
      PRECAST_DEAD_LETTERS    = aws_sqs_queue.dead_letters.id
      PRECAST_BASE_URL        = local.base_url
      PRECAST_DISTRIBUTION    = aws_cloudfront_distribution.cdn.id
      PRECAST_KEY_VALUE_STORE = aws_cloudfront_key_value_store.rollouts.arn
    },
  )
}

output "function_names" {
  description = "Names of the Lambda functions; `edge` is in us-east-1."
  value = {
    enqueuer = aws_lambda_function.enqueuer.function_name
    builder  = aws_lambda_function.builder.function_name
    composer = aws_lambda_function.composer.function_name
    edge     = aws_lambda_function.edge.function_name
  }
}

output "release_manager_policy" {
  description = "IAM policy document for those who change the catalog."
  value       = jsonencode(local.release_manager_policy)
}

output "release_manager_policy_arn" {
  description = "ARN of that policy, if `create_release_manager_policy` is set."
  value       = one(aws_iam_policy.release_manager[*].arn)
}

output "kms_key_statement" {
  description = "Statement that the policy of `bucket_kms_key_arn` needs: it lets the distribution decrypt. Null without a key."
  # https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/private-content-restricting-access-to-s3.html
  value = var.bucket_kms_key_arn == null ? null : jsonencode({
    Sid       = "PrecastDistributionDecrypts"
    Effect    = "Allow"
    Principal = { Service = "cloudfront.amazonaws.com" }
    Action    = "kms:Decrypt"
    Resource  = "*"
    Condition = { StringEquals = { "AWS:SourceArn" = aws_cloudfront_distribution.cdn.arn } }
  })
}

output "dashboard_url" {
  description = "The CloudWatch dashboard."
  value       = "https://${local.region}.console.aws.amazon.com/cloudwatch/home?region=${local.region}#dashboards/dashboard/${aws_cloudwatch_dashboard.precast.dashboard_name}"
}
