data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account = data.aws_caller_identity.current.account_id
  # Both major versions of the provider have it under this name; the other names differ.
  region    = data.aws_region.current.id
  partition = data.aws_partition.current.partition

  # Names of what is global or in us-east-1: installations in several regions must not meet there.
  global_name = "${var.name}-${local.region}"

  tags = merge({ application = "precast", installation = var.name }, var.tags)
}

# --- objects

# See internal/format/layout for what is in it. Everything but the index is immutable and named by its content.
resource "aws_s3_bucket" "store" {
  #checkov:skip=CKV_AWS_144:replication is the operator's choice; everything but the binaries can be built again
  #checkov:skip=CKV2_AWS_62:nothing waits for events of the bucket
  bucket        = coalesce(var.bucket_name, "${var.name}-${local.account}-${local.region}")
  force_destroy = var.force_destroy
  tags          = local.tags
}

resource "aws_s3_bucket_public_access_block" "store" {
  bucket                  = aws_s3_bucket.store.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "store" {
  bucket = aws_s3_bucket.store.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "store" {
  bucket = aws_s3_bucket.store.id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm     = var.bucket_kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.bucket_kms_key_arn
    }
    # One call to KMS for many objects (https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-key.html).
    bucket_key_enabled = var.bucket_kms_key_arn != null
  }
}

resource "aws_s3_bucket_versioning" "store" {
  bucket = aws_s3_bucket.store.id
  versioning_configuration {
    status = var.bucket_versioning ? "Enabled" : "Suspended"
  }
}

# No rule expires bundles, pieces or binaries: their age does not tell whether an index still names them.
resource "aws_s3_bucket_lifecycle_configuration" "store" {
  bucket = aws_s3_bucket.store.id
  # Rules about versions need to know whether there are any.
  depends_on = [aws_s3_bucket_versioning.store]

  # A builder that dies leaves the parts of an upload behind.
  rule {
    id     = "incomplete-uploads"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }

  rule {
    id     = "plans"
    status = "Enabled"
    filter {
      prefix = "plans/"
    }
    expiration {
      days = var.plan_retention_days
    }
  }

  # Stays when versioning is switched off again: old versions are still there then.
  rule {
    id     = "noncurrent-versions"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_version_days
    }
  }

  rule {
    id     = "delete-markers"
    status = "Enabled"
    filter {}
    expiration {
      expired_object_delete_marker = true
    }
  }
}

resource "aws_s3_bucket_logging" "store" {
  count         = var.bucket_access_logs == null ? 0 : 1
  bucket        = aws_s3_bucket.store.id
  target_bucket = var.bucket_access_logs.bucket
  target_prefix = var.bucket_access_logs.prefix
}

resource "aws_s3_bucket_policy" "store" {
  bucket     = aws_s3_bucket.store.id
  depends_on = [aws_s3_bucket_public_access_block.store]
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "OnlyTLS"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.store.arn, "${aws_s3_bucket.store.arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
      {
        # What devices may get, and nothing else: not the index, not pieces, not plans. Without
        # s3:ListBucket, a missing object is 403 (https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html),
        # on which the origin group asks the composer.
        Sid       = "ReadThroughTheDistribution"
        Effect    = "Allow"
        Principal = { Service = "cloudfront.amazonaws.com" }
        Action    = "s3:GetObject"
        Resource  = [for key in local.public_keys : "${aws_s3_bucket.store.arn}/${key}"]
        Condition = { StringEquals = { "AWS:SourceArn" = aws_cloudfront_distribution.cdn.arn } }
      },
    ]
  })
}

locals {
  # Prefixes and keys of internal/format/layout; readme_test.go holds them together.
  public_keys = ["bundles/*", "manifests/*", "binaries/*", "keyring", "keyring.d/*"]
}

# --- tables

resource "aws_dynamodb_table" "catalog" {
  #checkov:skip=CKV_AWS_119:an AWS managed key; a custom key would have to be granted to everyone who changes the catalog
  name                        = "${var.name}-catalog"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "app"
  range_key                   = "env"
  stream_enabled              = true
  stream_view_type            = "NEW_AND_OLD_IMAGES"
  deletion_protection_enabled = var.deletion_protection
  tags                        = local.tags

  attribute {
    name = "app"
    type = "S"
  }

  attribute {
    name = "env"
    type = "S"
  }

  point_in_time_recovery {
    enabled = var.point_in_time_recovery
  }

  server_side_encryption {
    enabled = true
  }
}

# How far builds are, and the numbers of plans (internal/store/aws, Ledger). If it is lost, counting continues above what
# went before: it needs no backup.
resource "aws_dynamodb_table" "ledger" {
  #checkov:skip=CKV_AWS_119:an AWS managed key, as for the catalog
  #checkov:skip=CKV_AWS_28:it needs no backup: its first number is the time, and a full plan makes the rest again
  name                        = "${var.name}-ledger"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "id"
  deletion_protection_enabled = var.deletion_protection
  tags                        = local.tags

  attribute {
    name = "id"
    type = "S"
  }

  ttl {
    attribute_name = "expires"
    enabled        = true
  }

  server_side_encryption {
    enabled = true
  }
}
