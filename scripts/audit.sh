#!/usr/bin/env bash
# Asks the registry's advisories about the pinned versions, with pip-audit: fails where one has a known vulnerability.
# Where no advisories can be had (no network, a mirror without them) it says so, and does not fail.
#
#     bash scripts/audit.sh [PIP-AUDIT ARGUMENTS]    such as --ignore-vuln ID, of an advisory without a fix
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

not_asked() { echo "audit: NOT DONE, $1; the pinned versions were not compared with any advisories"; exit 0; }

# A release that has a published vulnerability: whoever serves advisories tells it.
timeout 20 .venv/bin/python - <<'PY' 2>/dev/null || not_asked "the advisory service did not answer"
import json, urllib.request
with urllib.request.urlopen("https://pypi.org/pypi/jinja2/3.1.2/json", timeout=10) as answer:
    assert json.load(answer)["vulnerabilities"]
PY
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
# In an environment of its own: nothing of the tests depends on it.
{ .venv/bin/python -m venv "$room/venv" && timeout 120 "$room/venv/bin/python" -m pip install --quiet 'pip-audit>=2.7,<3'; } \
  || not_asked "pip-audit could not be installed"
status=0
timeout 180 "$room/venv/bin/pip-audit" --no-deps --disable-pip --progress-spinner off --requirement scripts/constraints.txt \
  --format json --output "$room/found.json" "$@" || status=$?
[ -s "$room/found.json" ] || not_asked "pip-audit ended with status $status before it had an answer"
exit "$status"
