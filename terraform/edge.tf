locals {
  edge_name    = "${local.global_name}-edge"
  edge_package = "${var.packages_dir}/edge.zip"

  host = length(var.aliases) > 0 ? var.aliases[0] : aws_cloudfront_distribution.cdn.domain_name

  origin_store    = "store"
  origin_composer = "composer"
  origin_group    = "store-then-composer"

  # Lambda@Edge has no environment variables: it takes its bucket from the origin. What a viewer sends
  # under these names is replaced
  # (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/add-origin-custom-headers.html).
  origin_headers = {
    "x-precast-bucket" = aws_s3_bucket.store.id
    "x-precast-region" = local.region
  }
}

# --- what runs at the edge

# Every request: the cache key, and 404 for every path that there is not.
resource "aws_cloudfront_function" "request" {
  name    = "${local.global_name}-request"
  comment = "Precast: canonical query and held tags"
  runtime = "cloudfront-js-2.0"
  publish = true
  code    = file("${var.packages_dir}/function.js")

  # One at most (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/kvs-with-functions-associate.html).
  key_value_store_associations = [aws_cloudfront_key_value_store.rollouts.arn]
}

# Which slots are in which rollout. The builder writes what is in it, so none of it is in the state.
resource "aws_cloudfront_key_value_store" "rollouts" {
  name    = "${local.global_name}-rollouts"
  comment = "Precast: table of rollouts"
}

# Every answer to /package: caches between here and the device must know that it depends on what the device holds,
# and a device that holds everything gets a 304, which is made here, behind CloudFront's own cache.
#
# Not by a response headers policy. That adds its headers to "every response that it returns to viewers"
# (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/understanding-response-headers-policies.html),
# errors included, and knows no status.
resource "aws_cloudfront_function" "response" {
  name    = "${local.global_name}-response"
  comment = "Precast: Vary, and 304 for devices that hold everything"
  runtime = "cloudfront-js-2.0"
  publish = true
  code    = file("${var.packages_dir}/response.js")
}

# Every miss of /package: from the selection to the object's key.
resource "aws_lambda_function" "edge" {
  #checkov:skip=CKV_AWS_50:Lambda@Edge has no X-Ray
  #checkov:skip=CKV_AWS_115:Lambda@Edge has no reserved concurrency
  #checkov:skip=CKV_AWS_116:Lambda@Edge has no dead letters
  #checkov:skip=CKV_AWS_117:Lambda@Edge has no VPC
  #checkov:skip=CKV_AWS_272:the packages come from the folder of the user who applies this
  provider         = aws.us_east_1
  function_name    = local.edge_name
  description      = "Precast: origin-request handler"
  role             = aws_iam_role.edge.arn
  runtime          = var.edge_runtime
  handler          = "index.handler"
  architectures    = ["x86_64"]
  filename         = local.edge_package
  source_code_hash = filebase64sha256(local.edge_package)
  memory_size      = var.edge_memory_mb
  timeout          = 5
  # CloudFront takes a numbered version only.
  publish    = true
  tags       = local.tags
  depends_on = [aws_iam_role_policy.edge]

  timeouts {
    # Its replicas go some time after the distribution
    # (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/lambda-edge-delete-replicas.html).
    delete = "60m"
  }
}

# --- policies

resource "aws_cloudfront_cache_policy" "package" {
  name        = "${local.global_name}-package"
  comment     = "Precast: canonical query, cohort and held tags"
  min_ttl     = 0
  default_ttl = min(30, var.package_max_ttl_seconds)
  max_ttl     = var.package_max_ttl_seconds

  # What is in the key goes to the origin as well
  # (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/controlling-origin-requests.html):
  # no origin request policy is needed.
  parameters_in_cache_key_and_forwarded_to_origin {
    # Bundles are compressed. A JSON manifest is small.
    enable_accept_encoding_brotli = false
    enable_accept_encoding_gzip   = false

    cookies_config {
      cookie_behavior = "none"
    }
    headers_config {
      header_behavior = "whitelist"
      headers {
        items = ["X-Precast-Cohort", "X-Precast-Held"] # edge.CohortHeader, edge.HeldHeader
      }
    }
    query_strings_config {
      query_string_behavior = "all"
    }
  }
}

resource "aws_cloudfront_cache_policy" "binaries" {
  name        = "${local.global_name}-binaries"
  comment     = "Precast: immutable, by path alone"
  min_ttl     = 0
  default_ttl = 86400
  max_ttl     = 31536000

  parameters_in_cache_key_and_forwarded_to_origin {
    enable_accept_encoding_brotli = false
    enable_accept_encoding_gzip   = false

    cookies_config {
      cookie_behavior = "none"
    }
    headers_config {
      header_behavior = "none"
    }
    query_strings_config {
      query_string_behavior = "none"
    }
  }
}

resource "aws_cloudfront_response_headers_policy" "security" {
  #checkov:skip=CKV_AWS_259:hsts_max_age_seconds switches it on: what is a promise for a domain is for its owner to give
  name    = "${local.global_name}-security"
  comment = "Precast"

  security_headers_config {
    content_type_options {
      override = true
    }

    dynamic "strict_transport_security" {
      for_each = var.hsts_max_age_seconds > 0 ? [var.hsts_max_age_seconds] : []
      content {
        access_control_max_age_sec = strict_transport_security.value
        override                   = true
      }
    }
  }
}

resource "aws_cloudfront_origin_access_control" "store" {
  name                              = "${local.global_name}-store"
  description                       = "Precast: bucket"
  origin_access_control_origin_type = "s3"
  signing_behavior                  = "always"
  signing_protocol                  = "sigv4"
}

resource "aws_cloudfront_origin_access_control" "composer" {
  name                              = "${local.global_name}-composer"
  description                       = "Precast: function URL"
  origin_access_control_origin_type = "lambda"
  signing_behavior                  = "always"
  signing_protocol                  = "sigv4"
}

# --- the distribution

resource "aws_cloudfront_distribution" "cdn" {
  #checkov:skip=CKV2_AWS_47:web_acl_arn sets it; nothing here is Java
  #checkov:skip=CKV_AWS_305:there is no page at the root, by intent
  #checkov:skip=CKV_AWS_374:devices are anywhere
  #checkov:skip=CKV_AWS_174:with an alias TLSv1.2_2021; CloudFront's own certificate takes no choice
  comment             = "Precast ${var.name} (${local.region})"
  enabled             = true
  is_ipv6_enabled     = true
  http_version        = "http2and3"
  price_class         = var.price_class
  aliases             = var.aliases
  web_acl_id          = var.web_acl_arn
  wait_for_deployment = true
  tags                = local.tags

  origin {
    origin_id                = local.origin_store
    domain_name              = aws_s3_bucket.store.bucket_regional_domain_name
    origin_access_control_id = aws_cloudfront_origin_access_control.store.id
    # Half a minute of trying is the default; devices get the composer's answer sooner
    # (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/high_availability_origin_failover.html).
    connection_attempts = 2
    connection_timeout  = 5

    dynamic "custom_header" {
      for_each = local.origin_headers
      content {
        name  = custom_header.key
        value = custom_header.value
      }
    }

    dynamic "origin_shield" {
      for_each = var.origin_shield_region == null ? [] : [var.origin_shield_region]
      content {
        enabled              = true
        origin_shield_region = origin_shield.value
      }
    }
  }

  origin {
    origin_id                = local.origin_composer
    domain_name              = trimsuffix(trimprefix(aws_lambda_function_url.composer.function_url, "https://"), "/")
    origin_access_control_id = aws_cloudfront_origin_access_control.composer.id
    connection_attempts      = 2
    connection_timeout       = 5

    custom_origin_config {
      http_port              = 80
      https_port             = 443
      origin_protocol_policy = "https-only"
      origin_ssl_protocols   = ["TLSv1.2"]
      # The most without asking AWS for more: the composer stores a bundle before it sends it
      # (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/DownloadDistValuesOrigin.html).
      origin_read_timeout      = 60
      origin_keepalive_timeout = 5
    }

    dynamic "custom_header" {
      for_each = local.origin_headers
      content {
        name  = custom_header.key
        value = custom_header.value
      }
    }

    dynamic "origin_shield" {
      for_each = var.origin_shield_region == null ? [] : [var.origin_shield_region]
      content {
        enabled              = true
        origin_shield_region = origin_shield.value
      }
    }
  }

  # The object, or who can make it. S3 says 403 for what is missing, since CloudFront may not list; 404 if
  # somebody lets it; 5xx when it is in trouble. Not on 400 and 416: those are about the request, and the
  # composer would say the same.
  # (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/high_availability_origin_failover.html).
  origin_group {
    origin_id = local.origin_group

    failover_criteria {
      status_codes = [403, 404, 500, 502, 503, 504]
    }
    member {
      origin_id = local.origin_store
    }
    member {
      origin_id = local.origin_composer
    }
  }

  ordered_cache_behavior {
    path_pattern               = "/package"
    target_origin_id           = local.origin_group
    viewer_protocol_policy     = "redirect-to-https"
    allowed_methods            = ["GET", "HEAD"]
    cached_methods             = ["GET", "HEAD"]
    compress                   = false
    cache_policy_id            = aws_cloudfront_cache_policy.package.id
    response_headers_policy_id = aws_cloudfront_response_headers_policy.security.id

    function_association {
      event_type   = "viewer-request"
      function_arn = aws_cloudfront_function.request.arn
    }

    function_association {
      event_type   = "viewer-response"
      function_arn = aws_cloudfront_function.response.arn
    }

    lambda_function_association {
      event_type   = "origin-request"
      lambda_arn   = aws_lambda_function.edge.qualified_arn
      include_body = false
    }
  }

  ordered_cache_behavior {
    path_pattern               = "/binaries/*"
    target_origin_id           = local.origin_store
    viewer_protocol_policy     = "redirect-to-https"
    allowed_methods            = ["GET", "HEAD"]
    cached_methods             = ["GET", "HEAD"]
    compress                   = false
    cache_policy_id            = aws_cloudfront_cache_policy.binaries.id
    response_headers_policy_id = aws_cloudfront_response_headers_policy.security.id

    function_association {
      event_type   = "viewer-request"
      function_arn = aws_cloudfront_function.request.arn
    }
  }

  # The function answers 404 itself. If it did not, the bucket's policy would still refuse all but the
  # public prefixes.
  default_cache_behavior {
    target_origin_id           = local.origin_store
    viewer_protocol_policy     = "redirect-to-https"
    allowed_methods            = ["GET", "HEAD"]
    cached_methods             = ["GET", "HEAD"]
    compress                   = false
    cache_policy_id            = aws_cloudfront_cache_policy.binaries.id
    response_headers_policy_id = aws_cloudfront_response_headers_policy.security.id

    function_association {
      event_type   = "viewer-request"
      function_arn = aws_cloudfront_function.request.arn
    }
  }

  # 403 is left as it is: S3's, of a binary that is missing, and the function URL's, if CloudFront might not invoke it.
  # A page that calls it 404 would be for every path, and hide the latter.
  #
  # How long errors are kept, at least; a longer max-age counts
  # (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/HTTPStatusCodes.html). 5xx are kept too,
  # no-store or not, for 10 seconds by default: not longer here than a device is asked to wait
  # (edge.RetryAfter).
  dynamic "custom_error_response" {
    for_each = { 400 = 10, 404 = 10, 500 = 5, 502 = 5, 503 = 5, 504 = 5 }
    content {
      error_code            = custom_error_response.key
      error_caching_min_ttl = custom_error_response.value
    }
  }

  restrictions {
    geo_restriction {
      restriction_type = "none"
    }
  }

  viewer_certificate {
    cloudfront_default_certificate = length(var.aliases) == 0
    acm_certificate_arn            = var.certificate_arn
    ssl_support_method             = length(var.aliases) == 0 ? null : "sni-only"
    # CloudFront's own certificate comes with TLSv1 whatever is set
    # (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/secure-connections-supported-viewer-protocols-ciphers.html).
    minimum_protocol_version = length(var.aliases) == 0 ? "TLSv1" : "TLSv1.2_2021"
  }

  dynamic "logging_config" {
    for_each = var.access_logs == null ? [] : [var.access_logs]
    content {
      bucket          = logging_config.value.bucket
      prefix          = logging_config.value.prefix
      include_cookies = false
    }
  }
}
