#!/usr/bin/env bash
# Pin requirements-dev.in (which includes requirements.in) into requirements.lock.
# Local version labels and CUDA's packages are left out, so that the lock serves a CPU mirror and the open internet alike.
set -euo pipefail
cd "$(dirname "$0")/.."
links=${UV_FIND_LINKS:-$(python3 -m pip config get global.find-links 2>/dev/null || true)}
uv=$(command -v uv || echo .venv/bin/uv)
{
  echo "# Made by deploy/lock.sh from requirements-dev.in; do not edit."
  env ${links:+UV_FIND_LINKS="$links"} "$uv" pip compile -q --python-version 3.11 --no-annotate --no-header \
    --no-emit-find-links requirements-dev.in | sed -E 's/\+cpu$//' | grep -vE '^(nvidia-|triton|cuda-)'
} > requirements.lock.new
mv requirements.lock.new requirements.lock
