# docs/iam.md says why each action is needed.

locals {
  # Wherever a role can be assumed by a service on behalf of somebody else's resource, it says whose
  # (https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html).
  statements = {
    enqueuer = concat([
      {
        Sid      = "ReadChanges"
        Effect   = "Allow"
        Action   = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"]
        Resource = [aws_dynamodb_table.catalog.stream_arn]
      },
      {
        # Lambda sends there in the function's name
        # (https://docs.aws.amazon.com/lambda/latest/dg/services-dynamodb-errors.html).
        Sid      = "GiveUpChanges"
        Effect   = "Allow"
        Action   = ["sqs:SendMessage"]
        Resource = [aws_sqs_queue.stream_failures.arn]
      },
      {
        Sid      = "TakeNumbers"
        Effect   = "Allow"
        Action   = ["dynamodb:UpdateItem"]
        Resource = [aws_dynamodb_table.ledger.arn]
      },
      {
        Sid      = "SendJobs"
        Effect   = "Allow"
        Action   = ["sqs:SendMessage"]
        Resource = [aws_sqs_queue.jobs.arn]
      },
      {
        Sid      = "CountJobs"
        Effect   = "Allow"
        Action   = ["sqs:GetQueueAttributes"]
        Resource = [aws_sqs_queue.jobs.arn, aws_sqs_queue.dead_letters.arn]
      },
    ], local.trace_statements)

    composer = concat([
      {
        Sid      = "ReadPieces"
        Effect   = "Allow"
        Action   = ["s3:GetObject"]
        Resource = [for k in ["index", "index.d/*", "pieces/*"] : "${aws_s3_bucket.store.arn}/${k}"]
      },
      {
        Sid      = "TellMissingFromForbidden"
        Effect   = "Allow"
        Action   = ["s3:ListBucket"]
        Resource = [aws_s3_bucket.store.arn]
      },
      {
        # A piece that is missing or damaged: it cannot write one itself.
        Sid      = "AskForPieces"
        Effect   = "Allow"
        Action   = ["sqs:SendMessage"]
        Resource = [aws_sqs_queue.jobs.arn]
      },
      {
        # Only what is not there yet: anonymous requests lead to it, and it must not be able to replace a bundle
        # (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html).
        Sid       = "KeepWhatWasComposed"
        Effect    = "Allow"
        Action    = ["s3:PutObject"]
        Resource  = [for k in ["bundles/*", "manifests/*"] : "${aws_s3_bucket.store.arn}/${k}"]
        Condition = { Null = { "s3:if-none-match" = "false" } }
      },
      {
        # What somebody else has kept meanwhile: the answer has its ETag.
        Sid      = "ReadWhatWasKept"
        Effect   = "Allow"
        Action   = ["s3:GetObject"]
        Resource = [for k in ["bundles/*", "manifests/*"] : "${aws_s3_bucket.store.arn}/${k}"]
      },
      ], var.signing_key_arn == null ? [] : [
      {
        Sid      = "SignStatements"
        Effect   = "Allow"
        Action   = ["kms:Sign", "kms:GetPublicKey"]
        Resource = [var.signing_key_arn]
      },
    ], local.key_statements, local.trace_statements)
  }

  # Not in the map: these refer to the distribution, which refers to the composer.
  builder_statements = concat([
    {
      Sid      = "TakeJobs"
      Effect   = "Allow"
      Action   = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:SendMessage"]
      Resource = [aws_sqs_queue.jobs.arn]
    },
    {
      Sid      = "ReadCatalog"
      Effect   = "Allow"
      Action   = ["dynamodb:Scan"]
      Resource = [aws_dynamodb_table.catalog.arn]
    },
    {
      Sid      = "KeepLedger"
      Effect   = "Allow"
      Action   = ["dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:UpdateItem"]
      Resource = [aws_dynamodb_table.ledger.arn]
    },
    {
      Sid      = "ReadAndWriteObjects"
      Effect   = "Allow"
      Action   = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"]
      Resource = ["${aws_s3_bucket.store.arn}/*"]
    },
    {
      Sid      = "TellMissingFromForbidden"
      Effect   = "Allow"
      Action   = ["s3:ListBucket"]
      Resource = [aws_s3_bucket.store.arn]
    },
    {
      Sid      = "InvalidateAnswers"
      Effect   = "Allow"
      Action   = ["cloudfront:CreateInvalidation"]
      Resource = [aws_cloudfront_distribution.cdn.arn]
    },
    {
      Sid      = "KeepTheTableOfRollouts"
      Effect   = "Allow"
      Action   = ["cloudfront-keyvaluestore:DescribeKeyValueStore", "cloudfront-keyvaluestore:ListKeys", "cloudfront-keyvaluestore:UpdateKeys"]
      Resource = [aws_cloudfront_key_value_store.rollouts.arn]
    },
    ], length(var.source_bucket_arns) == 0 ? [] : [
    {
      Sid      = "ReadSources"
      Effect   = "Allow"
      Action   = ["s3:GetObject"]
      Resource = [for arn in var.source_bucket_arns : "${arn}/*"]
    },
  ], local.key_statements, local.trace_statements)

  # S3 encrypts and decrypts in the caller's name
  # (https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html).
  key_statements = var.bucket_kms_key_arn == null ? [] : [
    {
      Sid      = "UseTheBucketsKey"
      Effect   = "Allow"
      Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource = [var.bucket_kms_key_arn]
    },
  ]

  # X-Ray has no resources to name
  # (https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsx-ray.html).
  trace_statements = !var.tracing ? [] : [
    {
      Sid      = "Trace"
      Effect   = "Allow"
      Action   = ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]
      Resource = ["*"]
    },
  ]

  log_statements = {
    for f in local.functions : f => {
      Sid      = "WriteLogs"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = ["${aws_cloudwatch_log_group.function[f].arn}:*"]
    }
  }

  functions = toset(["enqueuer", "builder", "composer"])
}

resource "aws_iam_role" "function" {
  for_each = local.functions
  name     = "${local.global_name}-${each.key}"
  tags     = local.tags
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy" "enqueuer" {
  name   = "enqueuer"
  role   = aws_iam_role.function["enqueuer"].id
  policy = jsonencode({ Version = "2012-10-17", Statement = concat([local.log_statements["enqueuer"]], local.statements.enqueuer) })
}

resource "aws_iam_role_policy" "builder" {
  name   = "builder"
  role   = aws_iam_role.function["builder"].id
  policy = jsonencode({ Version = "2012-10-17", Statement = concat([local.log_statements["builder"]], local.builder_statements) })
}

resource "aws_iam_role_policy" "composer" {
  name   = "composer"
  role   = aws_iam_role.function["composer"].id
  policy = jsonencode({ Version = "2012-10-17", Statement = concat([local.log_statements["composer"]], local.statements.composer) })
}

# --- edge

resource "aws_iam_role" "edge" {
  name = "${local.global_name}-edge"
  tags = local.tags
  # Both services
  # (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/lambda-edge-permissions.html).
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = ["edgelambda.amazonaws.com", "lambda.amazonaws.com"] }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy" "edge" {
  name = "edge"
  role = aws_iam_role.edge.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([
      {
        # Without s3:ListBucket: before the first publish it is told 403, not 404.
        Sid      = "ReadIndex"
        Effect   = "Allow"
        Action   = ["s3:GetObject"]
        Resource = ["${aws_s3_bucket.store.arn}/index"]
      },
      {
        # In any region: it runs, and logs, next to the device, in log groups that it makes itself
        # (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/edge-functions-logs.html).
        Sid      = "WriteLogs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = ["arn:${local.partition}:logs:*:${local.account}:log-group:/aws/lambda/us-east-1.${local.edge_name}:*"]
      },
      ], var.bucket_kms_key_arn == null ? [] : [
      {
        Sid      = "UseTheBucketsKey"
        Effect   = "Allow"
        Action   = ["kms:Decrypt"]
        Resource = [var.bucket_kms_key_arn]
      },
    ])
  })
}

# --- schedules

resource "aws_iam_role" "schedule" {
  name = "${local.global_name}-schedule"
  tags = local.tags
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "scheduler.amazonaws.com" }
      Action    = "sts:AssumeRole"
      # https://docs.aws.amazon.com/scheduler/latest/UserGuide/cross-service-confused-deputy-prevention.html
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy" "schedule" {
  name = "schedule"
  role = aws_iam_role.schedule.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "AskForPlans"
      Effect   = "Allow"
      Action   = ["lambda:InvokeFunction"]
      Resource = [aws_lambda_function.enqueuer.arn]
    }]
  })
}

# --- people

locals {
  release_manager_policy = {
    Version = "2012-10-17"
    Statement = concat([
      {
        Sid      = "ChangeTheCatalog"
        Effect   = "Allow"
        Action   = ["dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:Scan"]
        Resource = [aws_dynamodb_table.catalog.arn]
      },
      {
        # The log of who changed what, and the catalog's version, are in the ledger's table; the rest of that table is the pipeline's.
        Sid       = "LogChanges"
        Effect    = "Allow"
        Action    = ["dynamodb:GetItem", "dynamodb:PutItem"]
        Resource  = [aws_dynamodb_table.ledger.arn]
        Condition = { "ForAllValues:StringLike" = { "dynamodb:LeadingKeys" = ["log", "log/*"] } }
      },
      {
        # What is beyond 5 GiB goes in parts, and those of an upload that fails are removed. Afterwards it is looked
        # whether they are still there.
        Sid      = "StoreBinaries"
        Effect   = "Allow"
        Action   = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"]
        Resource = ["${aws_s3_bucket.store.arn}/binaries/*"]
      },
      {
        # A change is compared with what is published, and with what was. An import waits for a sweep that may be
        # removing binaries.
        Sid      = "ReadWhatIsPublished"
        Effect   = "Allow"
        Action   = ["s3:GetObject"]
        Resource = [for key in ["index", "index.d/*", "sweep"] : "${aws_s3_bucket.store.arn}/${key}"]
      },
      {
        # Before the first publish there is no index, and most of the time no fence, and S3 says 403 for what is missing to who may not list
        # (https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html).
        Sid      = "TellMissingFromForbidden"
        Effect   = "Allow"
        Action   = ["s3:ListBucket"]
        Resource = [aws_s3_bucket.store.arn]
      },
    ], local.key_statements)
  }
}

resource "aws_iam_policy" "release_manager" {
  count       = var.create_release_manager_policy ? 1 : 0
  name        = "${local.global_name}-release-manager"
  description = "Change the catalog of ${var.name} and store binaries"
  policy      = jsonencode(local.release_manager_policy)
  tags        = local.tags
}
