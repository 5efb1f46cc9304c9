ARG BASE
FROM ${BASE}
COPY agent.mjs /opt/agentctl/agent.mjs
# runc gives a tmpfs the mode of the folder below it, whatever mode was asked for, and root as its owner.
RUN chmod 1777 /workspace
USER 10001:10001
WORKDIR /workspace
ENV HOME=/workspace
# One malloc arena and a small young generation: what an idle agent costs (bench: memory).
ENV MALLOC_ARENA_MAX=1
# Slow on purpose: readiness is the gateway's to know; this is for the engine's own tools.
HEALTHCHECK --interval=60s --timeout=5s --start-period=60s --retries=2 CMD ["test", "-f", "/tmp/.agentctl-ready"]
ENTRYPOINT ["node", "--max-semi-space-size=1", "/opt/agentctl/agent.mjs"]
