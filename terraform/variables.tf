# --- what it is called, what it is made of

variable "name" {
  description = "Names everything; two installations in one account and region need two names."
  type        = string
  default     = "precast"
  nullable    = false

  validation {
    # 32: with account and region it must fit into a bucket's 63 characters.
    condition     = can(regex("^[a-z][a-z0-9-]{0,30}[a-z0-9]$", var.name))
    error_message = "The name must be 2 to 32 lower-case letters, digits and dashes, begin with a letter and not end in a dash."
  }
}

variable "packages_dir" {
  description = "Folder with `enqueuer-ARCH.zip`, `builder-ARCH.zip`, `composer-ARCH.zip`, `edge.zip`, `function.js` and `response.js`, as `make package edge` writes them."
  type        = string
  nullable    = false

  validation {
    condition     = length(var.packages_dir) > 0 && !endswith(var.packages_dir, "/")
    error_message = "The packages folder must not be empty or end in a slash."
  }
}

variable "architecture" {
  description = "Architecture of the functions in the region, `arm64` or `x86_64`. The one at the edge is always x86_64."
  type        = string
  default     = "arm64"
  nullable    = false

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "The architecture must be arm64 or x86_64."
  }
}

variable "tags" {
  description = "Tags of everything that can have tags."
  type        = map(string)
  default     = {}
  nullable    = false
}

# --- storage

variable "bucket_name" {
  description = "Name of the bucket; `NAME-ACCOUNT-REGION` if null."
  type        = string
  default     = null

  validation {
    condition     = var.bucket_name == null || can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket_name))
    error_message = "The bucket name must be 3 to 63 lower-case letters, digits and dashes (dots break TLS)."
  }
}

variable "bucket_kms_key_arn" {
  description = "KMS key that encrypts the bucket's objects; S3's own keys if null. Its key policy must let CloudFront decrypt: see the output `kms_key_statement`."
  type        = string
  default     = null

  validation {
    condition     = var.bucket_kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.bucket_kms_key_arn))
    error_message = "The KMS key must be given by the ARN of the key, not by an alias."
  }
}

variable "bucket_versioning" {
  description = "Keep what is overwritten or deleted for `noncurrent_version_days`."
  type        = bool
  default     = true
  nullable    = false
}

variable "noncurrent_version_days" {
  description = "Days that overwritten and deleted objects are kept."
  type        = number
  default     = 7
  nullable    = false

  validation {
    condition     = var.noncurrent_version_days >= 1 && floor(var.noncurrent_version_days) == var.noncurrent_version_days
    error_message = "Noncurrent versions must be kept for at least one whole day."
  }
}

variable "plan_retention_days" {
  description = "Days that plans (`plans/`) are kept: they are of no use once they are published or superseded."
  type        = number
  default     = 30
  nullable    = false

  validation {
    # A job may wait in the dead letters for 14 days and continue its plan then.
    condition     = var.plan_retention_days >= 15 && floor(var.plan_retention_days) == var.plan_retention_days
    error_message = "Plans must be kept for at least 15 days: jobs among the dead letters, which are kept for 14, refer to them."
  }
}

variable "bucket_access_logs" {
  description = "Bucket (in the same region) and prefix for S3 server access logs of the bucket; none if null."
  type = object({
    bucket = string
    prefix = optional(string, "precast-bucket/")
  })
  default = null

  validation {
    condition     = var.bucket_access_logs == null || length(try(var.bucket_access_logs.bucket, "")) >= 3
    error_message = "Access logs need the name of a bucket."
  }
}

variable "force_destroy" {
  description = "Let `terraform destroy` delete the bucket with everything in it."
  type        = bool
  default     = false
  nullable    = false
}

variable "deletion_protection" {
  description = "Protect both tables from being deleted."
  type        = bool
  default     = true
  nullable    = false
}

variable "point_in_time_recovery" {
  description = "Continuous backups of the catalog table."
  type        = bool
  default     = true
  nullable    = false
}

# --- how a change is published

variable "stream_window_seconds" {
  description = "How long the enqueuer waits for further changes, so that one build serves a burst."
  type        = number
  default     = 2
  nullable    = false

  validation {
    # https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-params.html
    condition     = var.stream_window_seconds >= 0 && var.stream_window_seconds <= 300
    error_message = "The window must be 0 to 300 seconds."
  }
}

variable "builder_memory_mb" {
  description = "Memory of the builder. At 1,769 MB it has one whole CPU."
  type        = number
  default     = 1769 # https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
  nullable    = false

  validation {
    condition     = var.builder_memory_mb >= 256 && var.builder_memory_mb <= 10240
    error_message = "The builder's memory must be 256 to 10240 MB."
  }
}

variable "builder_timeout_seconds" {
  description = "Timeout of the builder. The queue's visibility timeout is six times as long."
  type        = number
  default     = 900
  nullable    = false

  validation {
    # It stops itself 20 seconds before the end (PRECAST_DEADLINE_MARGIN).
    condition     = var.builder_timeout_seconds >= 60 && var.builder_timeout_seconds <= 900
    error_message = "The builder's timeout must be 60 to 900 seconds."
  }
}

variable "builder_storage_mb" {
  description = "Size of the builder's /tmp: four times the largest binary, since two jobs at a time each hold a binary and its compressed piece."
  type        = number
  default     = 2048
  nullable    = false

  validation {
    condition     = var.builder_storage_mb >= 512 && var.builder_storage_mb <= 10240
    error_message = "The builder's storage must be 512 to 10240 MB."
  }
}

variable "builder_max_concurrency" {
  description = "How many builders may work at a time."
  type        = number
  default     = 10
  nullable    = false

  validation {
    # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
    condition     = var.builder_max_concurrency >= 2 && var.builder_max_concurrency <= 1000
    error_message = "The maximum concurrency must be 2 to 1000."
  }
}

variable "max_receive_count" {
  description = "How often a job is tried before it becomes a dead letter."
  type        = number
  default     = 5
  nullable    = false

  validation {
    # The builder rejects an unreadable binary at its 5th attempt (PRECAST_ATTEMPTS): it must come to that.
    condition     = var.max_receive_count >= 5 && var.max_receive_count <= 1000
    error_message = "Jobs must be tried 5 to 1000 times."
  }
}

variable "build_settings" {
  description = "What is prebuilt; null is the program's default. See the build settings in docs/operations.md."
  type = object({
    max_bundles      = optional(number)
    max_bytes        = optional(number)
    max_combinations = optional(number)
    subset_items     = optional(number)
    retain           = optional(number)
    part_bytes       = optional(number)
    concurrency      = optional(number)
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for v in values(var.build_settings) : v == null || try(v >= 0 && floor(v) == v, false)])
    error_message = "Build settings must be whole numbers."
  }

  # The limits of internal/run/settings: the builder would not start.
  validation {
    condition     = alltrue([for k in ["max_bytes", "max_combinations"] : coalesce(var.build_settings[k], 1) >= 1])
    error_message = "max_bytes and max_combinations must be at least 1."
  }

  validation {
    condition     = coalesce(var.build_settings.retain, 0) <= 16
    error_message = "retain must be at most 16."
  }

  validation {
    condition     = coalesce(var.build_settings.concurrency, 0) <= 1000
    error_message = "concurrency must be at most 1000."
  }
}

variable "function_environment" {
  description = "Further environment variables of the functions in the region, such as `AWS_USE_FIPS_ENDPOINT` or `GOMEMLIMIT`; what the module sets itself wins."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    # Names: https://docs.aws.amazon.com/lambda/latest/APIReference/API_Environment.html. Those that Lambda keeps for
    # itself: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html.
    condition = alltrue([for k in keys(var.function_environment) :
      can(regex("^[A-Za-z][A-Za-z0-9_]+$", k)) && !startswith(k, "AWS_LAMBDA_") && !contains([
        "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR",
      ], k)
    ])
    error_message = "Environment variables must have names of letters, digits and underscores that Lambda does not reserve."
  }

  validation {
    # The edge tells by it which statement is current, and has no environment: in edge.zip it is
    # statement.DefaultSchedule. Devices would ask for statements that the composer does not sign.
    condition     = !contains(keys(var.function_environment), "PRECAST_STATEMENT_PERIOD") && !contains(keys(var.function_environment), "STATEMENT_PERIOD")
    error_message = "PRECAST_STATEMENT_PERIOD cannot be set: the function at the edge would go by another."
  }
}

variable "source_bucket_arns" {
  description = "Other buckets that catalog items name in `s3://` URLs, by ARN; the builder may read their objects."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.source_bucket_arns : can(regex("^arn:[a-z-]+:s3:::[^/*]+$", arn))])
    error_message = "Source buckets must be given by ARN, such as arn:aws:s3:::releases."
  }
}

variable "reconcile_schedule" {
  description = "When a full plan mends what a lost event left behind, and jobs are counted."
  type        = string
  default     = "rate(15 minutes)"
  nullable    = false

  validation {
    condition     = can(regex("^(rate|cron)\\(.+\\)$", var.reconcile_schedule))
    error_message = "The schedule must be a rate(...) or cron(...) expression."
  }
}

variable "verify_schedule" {
  description = "When every object is looked up, and what is missing is built again; never if null."
  type        = string
  default     = "rate(1 day)"

  validation {
    condition     = var.verify_schedule == null || can(regex("^(rate|cron)\\(.+\\)$", var.verify_schedule))
    error_message = "The schedule must be a rate(...) or cron(...) expression, or null."
  }
}

# --- composing on request

variable "composer_memory_mb" {
  description = "Memory of the composer."
  type        = number
  default     = 1769
  nullable    = false

  validation {
    condition     = var.composer_memory_mb >= 256 && var.composer_memory_mb <= 10240
    error_message = "The composer's memory must be 256 to 10240 MB."
  }
}

variable "composer_timeout_seconds" {
  description = "Timeout of the composer. A device is answered within 60 seconds; what is large may be stored for longer."
  type        = number
  default     = 300
  nullable    = false

  validation {
    condition     = var.composer_timeout_seconds >= 10 && var.composer_timeout_seconds <= 900
    error_message = "The composer's timeout must be 10 to 900 seconds."
  }
}

variable "signing_key_arn" {
  description = "KMS key (ECC_NIST_EDWARDS25519) that signs statements: see docs/trust.md. Statements are not signed if null."
  type        = string
  default     = null

  validation {
    condition     = var.signing_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/", var.signing_key_arn))
    error_message = "signing_key_arn must be the ARN of a key, arn:aws:kms:REGION:ACCOUNT:key/ID."
  }
}

variable "reserved_concurrency" {
  description = "Reserved concurrency of each function; -1 is none. For the composer it bounds what anonymous requests can cost, for the builder it must not be less than `builder_max_concurrency`."
  type = object({
    enqueuer = optional(number, -1)
    builder  = optional(number, -1)
    composer = optional(number, -1)
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for v in values(var.reserved_concurrency) : v == -1 || v >= 1])
    error_message = "Reserved concurrency must be -1 or at least 1: 0 would switch the function off."
  }

  validation {
    # Lambda would poll more than it can run, and throttled jobs become dead letters
    # (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html).
    condition     = var.reserved_concurrency.builder == -1 || var.reserved_concurrency.builder >= var.builder_max_concurrency
    error_message = "The builder's reserved concurrency must not be less than builder_max_concurrency."
  }
}

# --- the edge

variable "edge_runtime" {
  description = "Runtime of the Lambda@Edge function. `nodejs24.x` needs version 6 of the provider."
  type        = string
  default     = "nodejs22.x"
  nullable    = false

  validation {
    condition     = contains(["nodejs20.x", "nodejs22.x", "nodejs24.x"], var.edge_runtime)
    error_message = "The edge's runtime must be nodejs20.x, nodejs22.x or nodejs24.x."
  }
}

variable "edge_memory_mb" {
  description = "Memory of the Lambda@Edge function."
  type        = number
  default     = 256
  nullable    = false

  validation {
    condition     = var.edge_memory_mb >= 128 && var.edge_memory_mb <= 10240
    error_message = "The edge's memory must be 128 to 10240 MB."
  }
}

variable "package_max_ttl_seconds" {
  description = "How long CloudFront may keep an answer to /package without asking again. A publish invalidates them; this bounds what a lost invalidation costs."
  type        = number
  default     = 60
  nullable    = false

  validation {
    condition     = var.package_max_ttl_seconds >= 1 && var.package_max_ttl_seconds <= 86400
    error_message = "The maximum TTL must be 1 to 86400 seconds."
  }
}

variable "aliases" {
  description = "Host names of the distribution besides its own; the first is used in URLs. They need a certificate."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for a in var.aliases : can(regex("^(\\*\\.)?[a-z0-9-]+(\\.[a-z0-9-]+)+$", a))]) && !startswith(join("", slice(var.aliases, 0, min(1, length(var.aliases)))), "*")
    error_message = "Aliases must be host names in lower case, without a scheme, and the first one without a wildcard."
  }

  validation {
    condition     = (length(var.aliases) == 0) == (var.certificate_arn == null)
    error_message = "Aliases need a certificate (certificate_arn), and a certificate needs aliases to serve."
  }
}

variable "certificate_arn" {
  description = "ACM certificate for the aliases, in us-east-1."
  type        = string
  default     = null

  validation {
    # https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cnames-and-https-requirements.html
    condition     = var.certificate_arn == null || can(regex("^arn:[a-z-]+:acm:us-east-1:[0-9]{12}:certificate/.+$", var.certificate_arn))
    error_message = "The certificate must be the ARN of an ACM certificate in us-east-1: CloudFront uses no other."
  }
}

variable "web_acl_arn" {
  description = "AWS WAF web ACL (WAFv2, scope CLOUDFRONT) in front of the distribution; none if null."
  type        = string
  default     = null

  validation {
    condition     = var.web_acl_arn == null || can(regex("^arn:[a-z-]+:wafv2:us-east-1:[0-9]{12}:global/webacl/.+$", var.web_acl_arn))
    error_message = "The web ACL must be the ARN of a WAFv2 web ACL of scope CLOUDFRONT."
  }
}

variable "price_class" {
  description = "Which edge locations serve: `PriceClass_100`, `PriceClass_200` or `PriceClass_All`."
  type        = string
  default     = "PriceClass_100"
  nullable    = false

  validation {
    condition     = contains(["PriceClass_100", "PriceClass_200", "PriceClass_All"], var.price_class)
    error_message = "The price class must be PriceClass_100, PriceClass_200 or PriceClass_All."
  }
}

variable "origin_shield_region" {
  description = "Region of CloudFront Origin Shield, the one next to the bucket; none if null."
  type        = string
  default     = null

  validation {
    condition     = var.origin_shield_region == null || can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.origin_shield_region))
    error_message = "Origin Shield needs the name of a region, such as eu-west-1."
  }
}

variable "access_logs" {
  description = "Bucket, by its domain name, and prefix for CloudFront's standard logs; none if null. The bucket needs ACLs enabled."
  type = object({
    bucket = string
    prefix = optional(string, "precast/")
  })
  default = null

  validation {
    condition     = var.access_logs == null || can(regex("^[a-z0-9.-]+\\.s3[a-z0-9.-]*\\.amazonaws\\.com$", var.access_logs.bucket))
    error_message = "The log bucket must be given by its domain name, such as logs.s3.amazonaws.com."
  }
}

variable "hsts_max_age_seconds" {
  description = "Strict-Transport-Security max-age of every answer; 0 sends none."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.hsts_max_age_seconds >= 0 && floor(var.hsts_max_age_seconds) == var.hsts_max_age_seconds
    error_message = "The age must be a whole number of seconds."
  }
}

# --- watching it

variable "log_retention_days" {
  description = "Days that logs of the functions in the region are kept."
  type        = number
  default     = 30
  nullable    = false

  validation {
    # https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "CloudWatch Logs knows only certain retentions: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653 days."
  }
}

variable "log_level" {
  description = "Least level of the functions' log lines, `DEBUG` or `INFO`."
  type        = string
  default     = "INFO"
  nullable    = false

  validation {
    # Metrics are log lines without a level. Lambda takes those for INFO, and would drop them with it
    # (https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html).
    condition     = contains(["DEBUG", "INFO"], var.log_level)
    error_message = "The log level must be DEBUG or INFO: above that, metrics would be dropped too."
  }
}

variable "metrics_namespace" {
  description = "CloudWatch namespace of the metrics; `Precast/NAME` if null. Installations that share one are added up."
  type        = string
  default     = null

  validation {
    condition     = var.metrics_namespace == null || can(regex("^[A-Za-z0-9._/#:-]{1,255}$", var.metrics_namespace)) && !startswith(coalesce(var.metrics_namespace, "x"), "AWS/")
    error_message = "The namespace must be 1 to 255 letters, digits and . _ / # : -, and not begin with AWS/."
  }
}

variable "tracing" {
  description = "Trace the functions in the region with X-Ray."
  type        = bool
  default     = false
  nullable    = false
}

variable "alarm_topic_arns" {
  description = "SNS topics, in the region of the pipeline, that are told of alarms there."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.alarm_topic_arns : can(regex("^arn:[a-z-]+:sns:[a-z0-9-]+:[0-9]{12}:.+$", arn))])
    error_message = "Topics must be given by ARN."
  }
}

variable "edge_alarm_topic_arns" {
  description = "SNS topics in us-east-1 that are told of alarms at the edge: an alarm cannot reach a topic in another region."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.edge_alarm_topic_arns : can(regex("^arn:[a-z-]+:sns:us-east-1:[0-9]{12}:.+$", arn))])
    error_message = "Topics for the edge must be given by ARN, and be in us-east-1."
  }
}

variable "alarm_thresholds" {
  description = "When alarms go off: seconds from a change to its publish, age of the oldest job, age of stream records, percentage of requests that get a 5xx."
  type = object({
    change_to_servable_seconds = optional(number, 900)
    oldest_job_seconds         = optional(number, 3600)
    stream_age_seconds         = optional(number, 300)
    edge_5xx_percent           = optional(number, 1)
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for v in values(var.alarm_thresholds) : v > 0])
    error_message = "Thresholds must be more than 0."
  }
}

variable "create_release_manager_policy" {
  description = "Make an IAM policy for those who change the catalog. The output `release_manager_policy` has its document in any case."
  type        = bool
  default     = false
  nullable    = false
}
