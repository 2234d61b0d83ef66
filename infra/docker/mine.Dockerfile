# Image for mining on a cluster: Ray's own image plus Trackmill's pinned dependencies.
# Build from the repository's root: docker build -f infra/docker/mine.Dockerfile -t trackmill-mine:0.1.0 .
# The tag's Ray version must equal the pin in constraints.txt (tests/infra checks it): driver and cluster must agree.
# RAY_DIGEST pins what the tag stands for: --build-arg RAY_DIGEST=@sha256:... (infra/README.md says how to get it).
ARG RAY_DIGEST=""
FROM rayproject/ray:2.60.0-py311-gpu${RAY_DIGEST}

WORKDIR /home/ray/trackmill
COPY --chown=ray:users pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY --chown=ray:users trackmill trackmill
COPY --chown=ray:users schemas schemas
COPY --chown=ray:users models models
COPY --chown=ray:users pipeline pipeline
COPY --chown=ray:users jobs jobs

# The root file system is read-only at run time, so our own code is compiled here, or else anew in every process.
RUN pip install --no-cache-dir --constraint constraints.txt --editable ".[sam,s3,gcs,http]" \
    && python -m compileall -q schemas models pipeline jobs

# Whoever reaches Ray's ports without its token is refused (infra/README.md); Ray tells nobody that it is used.
# Caches lie in /tmp: a pod can write nowhere else, and Numba refuses to work without a place for its own.
ENV RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0 \
    PYTHONUNBUFFERED=1 \
    TRACKMILL_CACHE=/tmp/trackmill-cache \
    NUMBA_CACHE_DIR=/tmp/numba-cache \
    TRITON_CACHE_DIR=/tmp/triton-cache \
    XDG_CACHE_HOME=/tmp/cache

# Not root: the user of Ray's image, by number, so that Kubernetes can tell.
USER 1000:100
