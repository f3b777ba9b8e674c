#!/bin/sh
# Installs checkov, which checks.sh runs, into .cache/checkov of this module. Does nothing if these very
# versions are there. Needs Python 3.11 or newer with venv.
# requirements.txt is what "pip freeze" says after "pip install checkov==<version>".
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
venv=${1:-$here/../../.cache/checkov}
wanted=$here/requirements.txt

if [ -x "$venv/bin/python" ] && cmp -s "$wanted" "$venv/installed.txt"; then
	exit 0
fi
mkdir -p "$(dirname -- "$venv")"
${PYTHON:-python3} -m venv --clear "$venv"
# No dependencies beyond those listed: what is tested with is what is pinned.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$wanted"
cp "$wanted" "$venv/installed.txt"
