#!/usr/bin/env bash
# Pack what executors need into one archive, and put it and the driver on S3.
#
#   deploy/pack-venv.sh OUT_DIR [s3://bucket/prefix]
#
# The archive is an environment of its own with the kernels and their libraries (deploy/emr-requirements.txt at the versions of
# requirements.lock), without Dagster, torch and pyspark: the cluster brings its own Spark. Run it on the kind of machine the
# cluster has (architecture, glibc): on Amazon Linux 2023, for instance in the container amazonlinux:2023, for EMR 7 and 8.
# PACK_HOME is where the cluster's Python of the same minor version lies (default /usr/bin, where EMR has python3.11).
# Prints the lines for emr.yaml. The name holds the digest of the code: another code is another archive.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: deploy/pack-venv.sh OUT_DIR [s3://bucket/prefix]}
to=${2:-}
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || command -v python3.11 || command -v python3)}
home=${PACK_HOME:-/usr/bin}
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv --copies --without-pip "$work/environment"
packed="$work/environment/bin/python"
minor=$("$packed" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
site="$work/environment/lib/python$minor/site-packages"

# The pinned versions of the few packages that kernels import, with what these need in turn.
grep -vE '^\s*(#|$)' deploy/emr-requirements.txt > "$work/wanted.txt"
uv=$(command -v uv || ls .venv/bin/uv 2>/dev/null || true)
links=${UV_FIND_LINKS:-$("$python" -m pip config get global.find-links 2>/dev/null || echo "${PIP_FIND_LINKS:-}")}
if [ -n "$uv" ]; then
  env ${links:+UV_FIND_LINKS="${links// /,}"} "$uv" pip install -q --python "$packed" -c requirements.lock -r "$work/wanted.txt"
else
  "$python" -m pip install -q --disable-pip-version-check --target "$site" -c requirements.lock -r "$work/wanted.txt"
fi
cp -r lens_assets "$site/lens_assets"
find "$site" -name __pycache__ -prune -exec rm -rf {} +
find "$site/pandas" "$site/scipy" "$site/pyarrow" -type d -name tests -prune -exec rm -rf {} +

# In the cluster the environment lies elsewhere, on top of the cluster's own Python.
sed -i -E "s|^home = .*|home = $home|; /^(executable|command) = /d" "$work/environment/pyvenv.cfg"
rm -f "$work/environment/bin/"{activate,activate.csh,activate.fish,Activate.ps1}

# It must load before it is shipped: with this machine's Python of the same minor version, and nothing else in reach.
base=$("$python" -c 'import sys; print(sys.base_prefix)')
read -r version digest < <(cd "$work" && env -i PATH=/usr/bin:/bin HOME="$work" PYTHONPATH="$site" "$base/bin/python$minor" -S -c '
import sys
for name in ("dagster", "torch", "pyspark"): sys.modules[name] = None
import lens_assets, lens_assets.remote.spark_main, lens_assets.science.engines.kernels, boto3, dagster_pipes, s3fs
from lens_assets.science.engines.code import package_digest
print(lens_assets.__version__, package_digest())')
architecture=$(uname -m | sed 's/aarch64/arm64/')
name="lens-assets-$version-$digest-$architecture.tar.gz"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$work/environment" -cf - . | gzip -n -6 > "$out/$name.part"
mv "$out/$name.part" "$out/$name"
cp lens_assets/remote/spark_main.py "$out/spark_main-$digest.py"
echo "packed: $(du -h "$out/$name" | cut -f1) for Python $minor under $home" >&2

where=${to:-"$out"}
if [ -n "$to" ]; then
  "$python" - "$to" "$out/$name" "$out/spark_main-$digest.py" <<'UPLOAD'
import sys
from pathlib import Path
from urllib.parse import urlsplit
import boto3
to, *files = sys.argv[1:]
place, s3 = urlsplit(to), boto3.client("s3")
for file in files:
    s3.upload_file(file, place.netloc, "/".join(p for p in (place.path.strip("/"), Path(file).name) if p))
UPLOAD
fi
echo "archive: $where/$name"
echo "entry: $where/spark_main-$digest.py"
