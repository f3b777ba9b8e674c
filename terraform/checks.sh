#!/bin/sh
# Checks the module and its examples: format, validity, tests with mocked providers, checkov. Needs Terraform
# and Python. Writes only to temporary folders and .cache/.
#
# TF_PLUGIN_MIRROR is a folder with providers (https://developer.hashicorp.com/terraform/cli/config/config-file,
# filesystem_mirror), the first of /opt/*/ that has one if it is not set. Empty: Terraform's registry.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

if [ -z "${TF_PLUGIN_MIRROR+set}" ]; then
	TF_PLUGIN_MIRROR=
	for dir in /opt/*/registry.terraform.io; do
		if [ -d "$dir" ]; then
			TF_PLUGIN_MIRROR=$(dirname -- "$dir")
			break
		fi
	done
fi
# Nothing of the caller's settings, and none of this machine's in the tree.
unset TF_CLI_ARGS TF_WORKSPACE AWS_PROFILE
if [ -n "$TF_PLUGIN_MIRROR" ]; then
	printf 'provider_installation {\n  filesystem_mirror {\n    path = "%s"\n  }\n}\n' "$TF_PLUGIN_MIRROR" >"$work/terraform.rc"
else
	: >"$work/terraform.rc"
fi
export TF_CLI_CONFIG_FILE="$work/terraform.rc" TF_IN_AUTOMATION=1 CHECKPOINT_DISABLE=1

echo "== format"
terraform fmt -check -recursive "$here"

# A copy: init writes a lock file beside the configuration, wherever its data are.
mkdir "$work/terraform"
cp -R "$here/." "$work/terraform"
rm -rf "$work/terraform/.terraform" "$work/terraform/.terraform.lock.hcl"

# The module's second provider has to come from somewhere.
mkdir "$work/terraform/wrapper"
cat >"$work/terraform/wrapper/main.tf" <<'END'
provider "aws" {
  region = "eu-west-1"
}

provider "aws" {
  alias  = "us_east_1"
  region = "us-east-1"
}

module "precast" {
  source = "./.."

  providers = {
    aws           = aws
    aws.us_east_1 = aws.us_east_1
  }

  packages_dir = "packages"
}
END

for dir in wrapper examples/basic examples/custom-domain; do
	echo "== valid: $dir"
	export TF_DATA_DIR="$work/data-$(basename "$dir")"
	terraform -chdir="$work/terraform/$dir" init -backend=false -input=false -no-color >"$work/log" || {
		cat "$work/log"
		exit 1
	}
	terraform -chdir="$work/terraform/$dir" validate -no-color
done
rm -r "$work/terraform/wrapper"

echo "== tests"
export TF_DATA_DIR="$work/data"
terraform -chdir="$work/terraform" init -backend=false -input=false -no-color >"$work/log" || {
	cat "$work/log"
	exit 1
}
terraform -chdir="$work/terraform" test -no-color

echo "== checkov"
sh "$here/checkov/install.sh"
# Of the copy's parent nothing is known to checkov: it asks nobody, and skips are in the files, with reasons.
LOG_LEVEL=ERROR "$here/../.cache/checkov/bin/checkov" --directory "$work/terraform" --framework terraform \
	--compact --quiet --skip-download
