# The image of one service, from the root of the repository:
#
#   docker build -f deploy/service.Dockerfile --build-arg SERVICE=codec -t stretto-codec:local .
#   docker build -f deploy/service.Dockerfile --target weights -t stretto-weights:local .
#   docker build -f deploy/service.Dockerfile --target weights-volume -t stretto-weights-volume:local .
#
# For GPUs: --build-arg TORCH_INDEX_URL=https://download.pytorch.org/whl/cu130, and -cuda at the end of the tag.
# An empty TORCH_INDEX_URL takes torch from where pip takes the rest; on PyPI it is built for CUDA too.
# PYTHON_IMAGE may carry a digest. Every package has the version of deploy/constraints.txt, those that only a build for
# CUDA needs that of deploy/constraints-cuda.txt; `make pins` writes both.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS weights-layout
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
COPY services /services
RUN mkdir /weights \
 && for folder in /services/*/weights; do cp -r "$folder" "/weights/$(basename "$(dirname "$folder")")"; done \
 && chmod -R a+rX /weights

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS weights
COPY --from=weights-layout /weights /weights
USER 10001:10001
CMD ["cp", "--recursive", "--no-target-directory", "/weights", "/target"]

# Nothing but the weights, a folder for each service: the kubelet mounts it, nobody runs it.
FROM scratch AS weights-volume
COPY --from=weights-layout /weights /
USER 10001:10001

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS builder
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ARG SERVICE
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT="/src/deploy/constraints.txt /src/deploy/constraints-cuda.txt"
WORKDIR /src
COPY deploy/constraints.txt deploy/constraints-cuda.txt deploy/
COPY protos protos
COPY shared shared
COPY services/${SERVICE} services/${SERVICE}
RUN python -m venv /opt/venv \
 && if grep -q '\[torch' "services/${SERVICE}/pyproject.toml"; then \
      /opt/venv/bin/pip install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch==2.13.0; \
    fi \
 && /opt/venv/bin/pip install ./protos "./shared[otlp]" "./services/${SERVICE}" \
 && printf '#!/opt/venv/bin/python\nfrom stretto_%s.main import main\n\nmain()\n' "$SERVICE" > /opt/venv/bin/stretto-service \
 && chmod 0755 /opt/venv/bin/stretto-service \
 && /opt/venv/bin/pip uninstall --yes pip

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS service
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ARG SERVICE
COPY deploy/services.toml /tmp/services.toml
# The table names what a service needs beside Python. Debian's own versions: they follow from the base image.
# hadolint ignore=DL3008
RUN python -c "import tomllib; [print(*s.get('packages', ())) for s in tomllib.load(open('/tmp/services.toml', 'rb'))['service'] if s['name'] == '${SERVICE}']" > /tmp/packages \
 && if [ -n "$(tr -d '[:space:]' < /tmp/packages)" ]; then \
      apt-get update && xargs apt-get install --yes --no-install-recommends < /tmp/packages && rm -rf /var/lib/apt/lists/*; \
    fi \
 && rm /tmp/services.toml /tmp/packages \
 && groupadd --gid 10001 stretto \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin stretto
COPY --from=builder /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
LABEL org.opencontainers.image.title="stretto-${SERVICE}" org.opencontainers.image.licenses="Apache-2.0"
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["stretto-service"]
