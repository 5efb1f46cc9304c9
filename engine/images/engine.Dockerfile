ARG BASE
FROM ${BASE}
COPY gateway.mjs egress.mjs controller.mjs /opt/agentctl/
USER 10002:10002
WORKDIR /opt/agentctl
