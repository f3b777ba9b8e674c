terraform {
  # 1.9: validations that look at other variables
  # (https://developer.hashicorp.com/terraform/language/v1.9.x/upgrade-guides).
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0"
      # Lambda@Edge functions and CloudFront's metrics are in us-east-1, wherever the rest is
      # (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/lambda-at-edge-function-restrictions.html).
      configuration_aliases = [aws.us_east_1]
    }
  }
}
