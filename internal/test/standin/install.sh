#!/bin/sh
# Installs the AWS stand-in that the tests with the tag "aws" start, into .cache/ministack of this
# module. Does nothing if these very versions are there. Needs Python 3.10 or newer with venv.
# requirements.txt is what "pip freeze" says after "pip install ministack==<version>".
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
venv=${1:-$here/../../../.cache/ministack}
wanted=$here/requirements.txt

if [ -x "$venv/bin/python" ] && cmp -s "$wanted" "$venv/installed.txt"; then
	exit 0
fi
mkdir -p "$(dirname -- "$venv")"
${PYTHON:-python3} -m venv --clear "$venv"
# No dependencies beyond those listed: what is tested with is what is pinned.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$wanted"
"$venv/bin/python" -m pip check --disable-pip-version-check >/dev/null
cp "$wanted" "$venv/installed.txt"
