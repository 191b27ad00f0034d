#!/usr/bin/env bash
# Format and lint protos/stretto, and generate protos/python (or the folder given) from it. Called by `make protos`,
# which puts the environment's buf and python on the PATH.
set -euo pipefail
cd "$(dirname "$0")"
target="${1:-python}"

if [ "$target" = python ]; then
  buf format --write
fi
buf lint
mkdir -p "$target"
find stretto -name '*.proto' -print0 | sort -z | xargs -0 python -m grpc_tools.protoc \
  --proto_path=. --python_out="$target" --pyi_out="$target" --grpc_python_out="$target"
