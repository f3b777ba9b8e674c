# Precast under your own host name, in a Route 53 zone that is there already: its certificate, its
# records, alarms by mail, logs.
#
#   make package edge                # in the repository's root: writes dist/
#   terraform init
#   terraform apply -var zone_name=example.com -var host=packages.example.com -var mail=ops@example.com

variable "region" {
  description = "Region of everything but the edge."
  type        = string
  default     = "eu-west-1"
}

variable "zone_name" {
  description = "Route 53 zone that the host name is in."
  type        = string
}

variable "host" {
  description = "Host name that devices ask."
  type        = string
}

variable "mail" {
  description = "Address that is told of alarms."
  type        = string
}

provider "aws" {
  region = var.region
}

# The edge's function and alarms, and the certificate: CloudFront uses none of another region.
provider "aws" {
  alias  = "us_east_1"
  region = "us-east-1"
}

data "aws_route53_zone" "zone" {
  name = var.zone_name
}

resource "aws_acm_certificate" "host" {
  provider          = aws.us_east_1
  domain_name       = var.host
  validation_method = "DNS"

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_route53_record" "validation" {
  for_each = {
    for o in aws_acm_certificate.host.domain_validation_options : o.domain_name => o
  }

  zone_id = data.aws_route53_zone.zone.zone_id
  name    = each.value.resource_record_name
  type    = each.value.resource_record_type
  records = [each.value.resource_record_value]
  ttl     = 300
}

resource "aws_acm_certificate_validation" "host" {
  provider                = aws.us_east_1
  certificate_arn         = aws_acm_certificate.host.arn
  validation_record_fqdns = [for r in aws_route53_record.validation : r.fqdn]
}

resource "aws_sns_topic" "alarms" {
  #checkov:skip=CKV_AWS_26:an alarm is no secret; an AWS managed key would keep CloudWatch out
  name = "precast-alarms"
}

resource "aws_sns_topic" "edge_alarms" {
  #checkov:skip=CKV_AWS_26:an alarm is no secret; an AWS managed key would keep CloudWatch out
  provider = aws.us_east_1
  name     = "precast-edge-alarms"
}

resource "aws_sns_topic_subscription" "alarms" {
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = var.mail
}

resource "aws_sns_topic_subscription" "edge_alarms" {
  provider  = aws.us_east_1
  topic_arn = aws_sns_topic.edge_alarms.arn
  protocol  = "email"
  endpoint  = var.mail
}

module "precast" {
  source = "../.."

  providers = {
    aws           = aws
    aws.us_east_1 = aws.us_east_1
  }

  packages_dir          = "${path.module}/../../../dist"
  aliases               = [var.host]
  certificate_arn       = aws_acm_certificate_validation.host.certificate_arn
  hsts_max_age_seconds  = 31536000
  origin_shield_region  = var.region
  alarm_topic_arns      = [aws_sns_topic.alarms.arn]
  edge_alarm_topic_arns = [aws_sns_topic.edge_alarms.arn]
  # Bounds what anonymous requests can cost. New accounts have too little concurrency to reserve any.
  reserved_concurrency = { composer = 50 }
}

resource "aws_route53_record" "host" {
  for_each = toset(["A", "AAAA"])
  zone_id  = data.aws_route53_zone.zone.zone_id
  name     = var.host
  type     = each.key

  alias {
    name                   = module.precast.distribution_domain_name
    zone_id                = module.precast.distribution_hosted_zone_id
    evaluate_target_health = false
  }
}

output "url" {
  description = "Where devices ask."
  value       = module.precast.url
}

output "shell" {
  description = "Shell commands that make precast work on this installation."
  value       = join("\n", [for k, v in module.precast.precast_environment : "export ${k}='${v}'"])
}
