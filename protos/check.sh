#!/usr/bin/env bash
# Fail if the wire is not formatted, breaks a lint rule, or protos/python is not what protos/stretto generates; and if it
# breaks those who speak it: published.binpb is the wire as old clients know it. Where a break is meant, or fields were
# published since, write it anew and commit it: cd protos && buf build --exclude-source-info -o published.binpb
set -euo pipefail
cd "$(dirname "$0")"
fresh="$(mktemp -d)"
trap 'rm -rf "$fresh"' EXIT

buf format --diff --exit-code
buf breaking --against published.binpb
bash generate.sh "$fresh"
if ! diff --recursive --brief --exclude=__pycache__ --exclude=py.typed --exclude='*.egg-info' "$fresh/stretto" python/stretto; then
  echo "protos/python is stale. Run: make protos" >&2
  exit 1
fi
echo "protos/python is fresh"
