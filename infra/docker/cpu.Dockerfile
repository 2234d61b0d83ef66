# Small image without CUDA: planning (--plan-only), inspect, status, evaluate, and mining in parts (--part) with proposers
# that need no GPU. Build from the repository's root: docker build -f infra/docker/cpu.Dockerfile -t trackmill-cpu:0.1.0 .
# PYTHON_DIGEST pins what the tag stands for: --build-arg PYTHON_DIGEST=@sha256:... (infra/README.md says how to get it).
ARG PYTHON_DIGEST=""
FROM python:3.11-slim-bookworm${PYTHON_DIGEST}

# The same user, group and folders as in Ray's image, so that one manifest fits both.
RUN groupadd --force --gid 100 users && useradd --uid 1000 --gid 100 --create-home ray
WORKDIR /home/ray/trackmill
COPY --chown=1000:100 pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY --chown=1000:100 trackmill trackmill
COPY --chown=1000:100 schemas schemas
COPY --chown=1000:100 models models
COPY --chown=1000:100 pipeline pipeline
COPY --chown=1000:100 jobs jobs

# The root file system is read-only at run time, so our own code is compiled here, or else anew in every process.
RUN pip install --no-cache-dir --constraint constraints.txt --editable ".[s3,gcs,http]" \
    && python -m compileall -q schemas models pipeline jobs

# Ray is not started by what this image is for; where it is, it wants a token as everywhere, and tells nobody.
# Caches lie in /tmp: a pod can write nowhere else, and Numba refuses to work without a place for its own.
ENV RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0 \
    PYTHONUNBUFFERED=1 \
    TRACKMILL_CACHE=/tmp/trackmill-cache \
    NUMBA_CACHE_DIR=/tmp/numba-cache \
    TRITON_CACHE_DIR=/tmp/triton-cache \
    XDG_CACHE_HOME=/tmp/cache

# Not root, by number, so that Kubernetes can tell.
USER 1000:100
