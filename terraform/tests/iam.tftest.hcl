# What every role may do: exactly what docs/iam.md says, on exactly the resources named there.

mock_provider "aws" {
  source = "./tests/mocks"

  override_resource {
    target = aws_dynamodb_table.catalog
    values = {
      arn        = "arn:aws:dynamodb:eu-west-1:123456789012:table/catalog"
      stream_arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/catalog/stream/1"
    }
  }
  override_resource {
    target = aws_dynamodb_table.ledger
    values = { arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/ledger" }
  }
  override_resource {
    target = aws_sqs_queue.jobs
    values = { arn = "arn:aws:sqs:eu-west-1:123456789012:jobs" }
  }
  override_resource {
    target = aws_sqs_queue.dead_letters
    values = { arn = "arn:aws:sqs:eu-west-1:123456789012:dead-letters" }
  }
  override_resource {
    target = aws_sqs_queue.stream_failures
    values = { arn = "arn:aws:sqs:eu-west-1:123456789012:stream-failures" }
  }
  override_resource {
    target = aws_lambda_function.enqueuer
    values = { arn = "arn:aws:lambda:eu-west-1:123456789012:function:enqueuer" }
  }
}

mock_provider "aws" {
  alias  = "us_east_1"
  source = "./tests/mocks"
}

variables {
  packages_dir = "./tests/packages"
}

run "roles" {
  command = apply

  # Action by action: {"resource": ["action", ...]}.
  assert {
    condition = { for r in distinct(flatten([for s in jsondecode(aws_iam_role_policy.enqueuer.policy).Statement : s.Resource])) : r => sort(flatten([
      for s in jsondecode(aws_iam_role_policy.enqueuer.policy).Statement : s.Action if contains(s.Resource, r)
      ])) } == {
      "arn:aws:logs:eu-west-1:123456789012:log-group:g:*"              = tolist(["logs:CreateLogStream", "logs:PutLogEvents"])
      "arn:aws:dynamodb:eu-west-1:123456789012:table/catalog/stream/1" = tolist(["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"])
      "arn:aws:dynamodb:eu-west-1:123456789012:table/ledger"           = tolist(["dynamodb:UpdateItem"])
      "arn:aws:sqs:eu-west-1:123456789012:jobs"                        = tolist(["sqs:GetQueueAttributes", "sqs:SendMessage"])
      "arn:aws:sqs:eu-west-1:123456789012:dead-letters"                = tolist(["sqs:GetQueueAttributes"])
      "arn:aws:sqs:eu-west-1:123456789012:stream-failures"             = tolist(["sqs:SendMessage"])
    }
    error_message = "enqueuer: ${aws_iam_role_policy.enqueuer.policy}"
  }

  assert {
    condition = { for r in distinct(flatten([for s in jsondecode(aws_iam_role_policy.builder.policy).Statement : s.Resource])) : r => sort(flatten([
      for s in jsondecode(aws_iam_role_policy.builder.policy).Statement : s.Action if contains(s.Resource, r)
      ])) } == {
      "arn:aws:logs:eu-west-1:123456789012:log-group:g:*"           = tolist(["logs:CreateLogStream", "logs:PutLogEvents"])
      "arn:aws:sqs:eu-west-1:123456789012:jobs"                     = tolist(["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:SendMessage"])
      "arn:aws:dynamodb:eu-west-1:123456789012:table/catalog"       = tolist(["dynamodb:Scan"])
      "arn:aws:dynamodb:eu-west-1:123456789012:table/ledger"        = tolist(["dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:UpdateItem"])
      "arn:aws:s3:::precast/*"                                      = tolist(["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"])
      "arn:aws:s3:::precast"                                        = tolist(["s3:ListBucket"])
      "arn:aws:cloudfront::123456789012:distribution/EDISTRIBUTION" = tolist(["cloudfront:CreateInvalidation"])
      "arn:aws:cloudfront::123456789012:key-value-store/8562a61f-caba-2845-9d99-b97d3ae5d3c1" = tolist([
        "cloudfront-keyvaluestore:DescribeKeyValueStore", "cloudfront-keyvaluestore:ListKeys", "cloudfront-keyvaluestore:UpdateKeys",
      ])
    }
    error_message = "builder: ${aws_iam_role_policy.builder.policy}"
  }

  assert {
    condition = { for r in distinct(flatten([for s in jsondecode(aws_iam_role_policy.composer.policy).Statement : s.Resource])) : r => sort(flatten([
      for s in jsondecode(aws_iam_role_policy.composer.policy).Statement : s.Action if contains(s.Resource, r)
      ])) } == {
      "arn:aws:logs:eu-west-1:123456789012:log-group:g:*" = tolist(["logs:CreateLogStream", "logs:PutLogEvents"])
      "arn:aws:s3:::precast/index"                        = tolist(["s3:GetObject"])
      "arn:aws:s3:::precast/index.d/*"                    = tolist(["s3:GetObject"])
      "arn:aws:s3:::precast/pieces/*"                     = tolist(["s3:GetObject"])
      "arn:aws:s3:::precast"                              = tolist(["s3:ListBucket"])
      "arn:aws:sqs:eu-west-1:123456789012:jobs"           = tolist(["sqs:SendMessage"])
      "arn:aws:s3:::precast/bundles/*"                    = tolist(["s3:GetObject", "s3:PutObject"])
      "arn:aws:s3:::precast/manifests/*"                  = tolist(["s3:GetObject", "s3:PutObject"])
    }
    error_message = "composer: ${aws_iam_role_policy.composer.policy}"
  }
  assert {
    condition     = alltrue([for s in jsondecode(aws_iam_role_policy.composer.policy).Statement : try(s.Condition.Null["s3:if-none-match"], "") == "false" if contains(s.Action, "s3:PutObject")])
    error_message = "The composer may replace what is there."
  }

  assert {
    condition = { for r in distinct(flatten([for s in jsondecode(aws_iam_role_policy.edge.policy).Statement : s.Resource])) : r => sort(flatten([
      for s in jsondecode(aws_iam_role_policy.edge.policy).Statement : s.Action if contains(s.Resource, r)
      ])) } == {
      "arn:aws:s3:::precast/index" = tolist(["s3:GetObject"])
      # In every region, but only its own log groups.
      "arn:aws:logs:*:123456789012:log-group:/aws/lambda/us-east-1.precast-eu-west-1-edge:*" = tolist(["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"])
    }
    error_message = "edge: ${aws_iam_role_policy.edge.policy}"
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.schedule.policy).Statement == [
      { Sid = "AskForPlans", Effect = "Allow", Action = ["lambda:InvokeFunction"], Resource = ["arn:aws:lambda:eu-west-1:123456789012:function:enqueuer"] },
    ]
    error_message = "schedule: ${aws_iam_role_policy.schedule.policy}"
  }

  # Whatever is added later: no wildcard for an action, none for all resources.
  assert {
    condition = alltrue(flatten([
      for p in [aws_iam_role_policy.enqueuer, aws_iam_role_policy.builder, aws_iam_role_policy.composer, aws_iam_role_policy.edge, aws_iam_role_policy.schedule] : [
        for s in jsondecode(p.policy).Statement : [
          [for a in s.Action : !strcontains(a, "*")],
          [for r in s.Resource : r != "*"],
        ]
      ]
    ]))
    error_message = "A role has a wildcard."
  }

  assert {
    condition = (
      alltrue([for r in aws_iam_role.function : one(jsondecode(r.assume_role_policy).Statement).Principal.Service == "lambda.amazonaws.com"]) &&
      toset(one(jsondecode(aws_iam_role.edge.assume_role_policy).Statement).Principal.Service) == toset(["lambda.amazonaws.com", "edgelambda.amazonaws.com"]) &&
      one(jsondecode(aws_iam_role.schedule.assume_role_policy).Statement).Condition.StringEquals["aws:SourceAccount"] == "123456789012"
    )
    error_message = "Somebody else may assume a role."
  }

  assert {
    condition = jsondecode(output.release_manager_policy).Statement == [
      { Sid = "ChangeTheCatalog", Effect = "Allow", Action = ["dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:Scan"], Resource = ["arn:aws:dynamodb:eu-west-1:123456789012:table/catalog"] },
      { Sid = "LogChanges", Effect = "Allow", Action = ["dynamodb:GetItem", "dynamodb:PutItem"], Resource = ["arn:aws:dynamodb:eu-west-1:123456789012:table/ledger"], Condition = { "ForAllValues:StringLike" = { "dynamodb:LeadingKeys" = ["log", "log/*"] } } },
      { Sid = "StoreBinaries", Effect = "Allow", Action = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"], Resource = ["arn:aws:s3:::precast/binaries/*"] },
      { Sid = "ReadWhatIsPublished", Effect = "Allow", Action = ["s3:GetObject"], Resource = ["arn:aws:s3:::precast/index", "arn:aws:s3:::precast/index.d/*", "arn:aws:s3:::precast/sweep"] },
      { Sid = "TellMissingFromForbidden", Effect = "Allow", Action = ["s3:ListBucket"], Resource = ["arn:aws:s3:::precast"] },
    ]
    error_message = "release managers: ${output.release_manager_policy}"
  }
}

run "more_where_asked_for" {
  command = apply

  variables {
    source_bucket_arns            = ["arn:aws:s3:::releases"]
    bucket_kms_key_arn            = "arn:aws:kms:eu-west-1:123456789012:key/k"
    tracing                       = true
    create_release_manager_policy = true
  }

  assert {
    condition     = contains([for s in jsondecode(aws_iam_role_policy.builder.policy).Statement : jsonencode([s.Action, s.Resource])], jsonencode([["s3:GetObject"], ["arn:aws:s3:::releases/*"]]))
    error_message = "The builder may not read the sources."
  }
  assert {
    condition = alltrue([for p in [aws_iam_role_policy.builder, aws_iam_role_policy.composer] :
      contains([for s in jsondecode(p.policy).Statement : jsonencode([s.Action, s.Resource])], jsonencode([["kms:Decrypt", "kms:GenerateDataKey"], ["arn:aws:kms:eu-west-1:123456789012:key/k"]]))
    ])
    error_message = "A function may not use the bucket's key."
  }
  assert {
    condition     = contains([for s in jsondecode(aws_iam_role_policy.edge.policy).Statement : jsonencode([s.Action, s.Resource])], jsonencode([["kms:Decrypt"], ["arn:aws:kms:eu-west-1:123456789012:key/k"]]))
    error_message = "The edge may not decrypt the index."
  }
  assert {
    condition     = strcontains(aws_iam_role_policy.composer.policy, "xray:PutTraceSegments") && !strcontains(aws_iam_role_policy.edge.policy, "xray")
    error_message = "traces"
  }
  assert {
    condition     = one(aws_iam_policy.release_manager[*].policy) == output.release_manager_policy && output.release_manager_policy_arn != null
    error_message = "release managers"
  }
  assert {
    condition     = jsondecode(output.kms_key_statement).Condition.StringEquals["AWS:SourceArn"] == "arn:aws:cloudfront::123456789012:distribution/EDISTRIBUTION"
    error_message = "The key's statement is not for the distribution."
  }
}
