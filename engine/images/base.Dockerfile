# What every container of ours shares: Debian with its security updates, Node, the two users.
ARG DEBIAN
FROM ${DEBIAN}
# policy-rc.d: packages must not start their services.
RUN printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d \
 && if [ -f /etc/apt/sources.list ] && ! grep -q security /etc/apt/sources.list; then \
      printf '%s\n' 'deb http://deb.debian.org/debian bookworm main' 'deb http://deb.debian.org/debian bookworm-updates main' \
        'deb http://deb.debian.org/debian-security bookworm-security main' > /etc/apt/sources.list; fi \
 && printf 'path-exclude=/usr/share/%s/*\n' doc man info locale > /etc/dpkg/dpkg.cfg.d/agentctl \
 && apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get upgrade -qy && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
RUN echo 'agent:x:10001:10001::/workspace:/bin/sh' >> /etc/passwd && echo 'agent:x:10001:' >> /etc/group \
 && echo 'agentctl:x:10002:10002::/nonexistent:/usr/sbin/nologin' >> /etc/passwd && echo 'agentctl:x:10002:' >> /etc/group \
 && mkdir -p /workspace /opt/agentctl && chown 10001:10001 /workspace
COPY node /usr/local/bin/node
