#!/usr/bin/env bash
# Create the environment in $1 from requirements.lock. Works behind a mirror (pip's own configuration is honoured: index, extra
# index and find-links) and on the open internet. uv does the installing because it is five times faster; pip is the fallback.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}

python=""
for candidate in "${PYTHON:-}" python3.11 python3; do
  if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
     "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})'; then
    python=$candidate; break
  fi
done
[ -n "$python" ] || { echo "setup: needs Python 3.11 or 3.12 on the PATH (or PYTHON=/path/to/it)" >&2; exit 1; }

started=$SECONDS
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
links=${UV_FIND_LINKS:-$("$venv/bin/python" -m pip config get global.find-links 2>/dev/null || echo "${PIP_FIND_LINKS:-}")}
if "$venv/bin/python" -m pip install -q --disable-pip-version-check uv==0.13.9 2>/dev/null ||
   "$venv/bin/python" -m pip install -q --disable-pip-version-check uv; then
  env ${links:+UV_FIND_LINKS="${links// /,}"} "$venv/bin/uv" pip install -q --python "$venv/bin/python" -r requirements.lock ||
    "$venv/bin/python" -m pip install -q -r requirements.lock
else
  "$venv/bin/python" -m pip install -q -r requirements.lock
fi
# The package itself, in place; --no-deps because the lock holds everything.
"$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps -e .
echo "setup: environment in $venv after $((SECONDS - started)) s"
