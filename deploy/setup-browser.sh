#!/usr/bin/env bash
# A Chromium for the tests of the user interface: the one on the PATH, else Debian's package.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
  command -v "$name" >/dev/null 2>&1 && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
else
  echo "setup: no Chromium found and no right to install one: the browser tests will say that they are skipped" >&2
fi
