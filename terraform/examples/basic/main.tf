# The whole of Precast in one region, with CloudFront's own host name.
#
#   make package edge                # in the repository's root: writes dist/
#   terraform init && terraform apply
#   eval "$(terraform output -raw shell)" && precast seed
#
# State is kept in a local file here: give it a backend before more than one person works with it.

variable "region" {
  description = "Region of everything but the edge."
  type        = string
  default     = "eu-west-1"
}

provider "aws" {
  region = var.region
}

# The edge's function and alarms.
provider "aws" {
  alias  = "us_east_1"
  region = "us-east-1"
}

module "precast" {
  source = "../.."

  providers = {
    aws           = aws
    aws.us_east_1 = aws.us_east_1
  }

  packages_dir = "${path.module}/../../../dist"
}

output "url" {
  description = "Where devices ask."
  value       = module.precast.url
}

output "dashboard_url" {
  description = "Where to look."
  value       = module.precast.dashboard_url
}

output "shell" {
  description = "Shell commands that make precast work on this installation."
  value       = join("\n", [for k, v in module.precast.precast_environment : "export ${k}='${v}'"])
}
