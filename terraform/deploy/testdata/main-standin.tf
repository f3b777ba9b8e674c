# Written by precast deploy, which overwrites it. Backends go into backend.tf (--backend).

provider "aws" {
  region = "eu-west-1"

  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
  skip_region_validation      = true
  s3_use_path_style           = true

  endpoints {
    cloudfront = "http://127.0.0.1:4566"
    cloudwatch = "http://127.0.0.1:4566"
    dynamodb   = "http://127.0.0.1:4566"
    iam        = "http://127.0.0.1:4566"
    lambda     = "http://127.0.0.1:4566"
    logs       = "http://127.0.0.1:4566"
    s3         = "http://127.0.0.1:4566"
    scheduler  = "http://127.0.0.1:4566"
    sqs        = "http://127.0.0.1:4566"
    sts        = "http://127.0.0.1:4566"
  }
}

provider "aws" {
  alias  = "us_east_1"
  region = "us-east-1"

  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
  skip_region_validation      = true
  s3_use_path_style           = true

  endpoints {
    cloudfront = "http://127.0.0.1:4566"
    cloudwatch = "http://127.0.0.1:4566"
    dynamodb   = "http://127.0.0.1:4566"
    iam        = "http://127.0.0.1:4566"
    lambda     = "http://127.0.0.1:4566"
    logs       = "http://127.0.0.1:4566"
    s3         = "http://127.0.0.1:4566"
    scheduler  = "http://127.0.0.1:4566"
    sqs        = "http://127.0.0.1:4566"
    sts        = "http://127.0.0.1:4566"
  }
}

module "precast" {
  source = "./module"

  providers = {
    aws           = aws
    aws.us_east_1 = aws.us_east_1
  }

  color        = var.color
  name         = var.name
  packages_dir = var.packages_dir
}

output "url" {
  value = module.precast.url
}
