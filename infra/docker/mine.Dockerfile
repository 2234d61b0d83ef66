# Image for mining on a cluster: Ray's own image plus Trackmill's pinned dependencies.
# Build from the repository's root: docker build -f infra/docker/mine.Dockerfile -t trackmill-mine:0.1.0 .
# The tag's Ray version must equal the pin in constraints.txt (tests/infra checks it): driver and cluster must agree.
FROM rayproject/ray:2.60.0-py311-gpu

WORKDIR /home/ray/trackmill
COPY --chown=ray:users pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY --chown=ray:users trackmill trackmill
COPY --chown=ray:users schemas schemas
COPY --chown=ray:users models models
COPY --chown=ray:users pipeline pipeline
COPY --chown=ray:users jobs jobs

RUN pip install --no-cache-dir --constraint constraints.txt --editable ".[sam,s3,gcs,http]"

# Ray turns token authentication on by itself when it finds a token; say which mode is meant (infra/README.md).
ENV RAY_AUTH_MODE=disabled \
    PYTHONUNBUFFERED=1 \
    TRACKMILL_CACHE=/tmp/trackmill-cache
