ARG BASE
FROM ${BASE}
# The reader of the posture probe (engine/posture/probe.ts): nobody may read it, so its process is closed to others of its uid.
RUN cp /bin/cat /opt/agentctl/probe && chmod 0711 /opt/agentctl/probe && echo '--- agentctl probe ---' > /opt/agentctl/mark
COPY gateway.mjs egress.mjs controller.mjs /opt/agentctl/
USER 10002:10002
WORKDIR /opt/agentctl
