ARG BASE
FROM ${BASE}
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends ca-certificates curl git \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
