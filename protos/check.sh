#!/usr/bin/env bash
# Fail if the wire is not formatted, breaks a lint rule, or protos/python is not what protos/stretto generates.
set -euo pipefail
cd "$(dirname "$0")"
fresh="$(mktemp -d)"
trap 'rm -rf "$fresh"' EXIT

buf format --diff --exit-code
bash generate.sh "$fresh"
if ! diff --recursive --brief --exclude=__pycache__ --exclude=py.typed --exclude='*.egg-info' "$fresh/stretto" python/stretto; then
  echo "protos/python is stale. Run: make protos" >&2
  exit 1
fi
echo "protos/python is fresh"
