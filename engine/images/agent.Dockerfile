ARG BASE
FROM ${BASE}
# The reader of the posture probe (engine/posture/probe.ts): nobody may read it, so its process is closed to others of its uid.
RUN cp /bin/cat /opt/agentctl/probe && chmod 0711 /opt/agentctl/probe && echo '--- agentctl probe ---' > /opt/agentctl/mark
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
