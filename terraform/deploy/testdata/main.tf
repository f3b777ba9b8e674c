# Written by precast deploy, which overwrites it. Backends go into backend.tf (--backend).

provider "aws" {
  region = "eu-west-1"

  allowed_account_ids = ["123456789012"]
}

provider "aws" {
  alias  = "us_east_1"
  region = "us-east-1"

  allowed_account_ids = ["123456789012"]
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
