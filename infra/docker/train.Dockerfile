# Image for training on a cluster: Ray's own image plus Trackmill's pinned dependencies and DeepSpeed's operators, built.
# Build from the repository's root: docker build -f infra/docker/train.Dockerfile -t trackmill-train:0.1.0 .
# The tag's Ray version must equal the pin in constraints.txt (tests/infra checks it): driver and cluster must agree.
# RAY_DIGEST pins what the tag stands for: --build-arg RAY_DIGEST=@sha256:... (infra/README.md says how to get it).
ARG RAY_DIGEST=""
FROM rayproject/ray:2.60.0-py311-gpu${RAY_DIGEST}

# The operators are compiled where they are used: a compiler for those of the CPU, ninja comes with the extra.
USER 0
# Not pinned: the base image is, by its digest, and takes what its release has.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
USER 1000:100

WORKDIR /home/ray/trackmill
COPY --chown=ray:users pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY --chown=ray:users trackmill trackmill
COPY --chown=ray:users schemas schemas
COPY --chown=ray:users models models
COPY --chown=ray:users pipeline pipeline
COPY --chown=ray:users jobs jobs

# The root file system is read-only at run time, so our own code is compiled here, or else anew in every process.
RUN pip install --no-cache-dir --constraint constraints.txt --editable ".[train,lite0,deepspeed,mlflow,wandb,s3,gcs,http]" \
    && python -m compileall -q schemas models pipeline jobs

# Once here instead of in every rank at the start of every run, which takes minutes on a busy machine. It is the only
# operator that training builds, and on CPUs only: optimisers are torch's own.
ENV TORCH_EXTENSIONS_DIR=/home/ray/torch-extensions
RUN DS_ACCELERATOR=cpu python -c "from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder as B; B().load()"

# Whoever reaches Ray's ports without its token is refused (infra/README.md); Ray tells nobody that it is used.
# Caches lie in /tmp: a pod can write nowhere else, and Numba refuses to work without a place for its own.
ENV RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0 \
    PYTHONUNBUFFERED=1 \
    NO_ALBUMENTATIONS_UPDATE=1 \
    TRACKMILL_CACHE=/tmp/trackmill-cache \
    NUMBA_CACHE_DIR=/tmp/numba-cache \
    TRITON_CACHE_DIR=/tmp/triton-cache \
    XDG_CACHE_HOME=/tmp/cache

# Not root: the user of Ray's image, by number, so that Kubernetes can tell.
USER 1000:100
