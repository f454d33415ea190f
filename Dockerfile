# Quartet on Debian's Python; nothing is downloaded after the build.
FROM python:3.11-slim-bookworm AS build
WORKDIR /srv/quartet
COPY requirements requirements
COPY scripts/setup scripts/setup
RUN scripts/setup

FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap tigervnc-standalone-server \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --home-dir /srv/quartet quartet \
    && mkdir -p /data && chown quartet:quartet /data
WORKDIR /srv/quartet
COPY --from=build /srv/quartet/.venv .venv
COPY . .
USER quartet
VOLUME /data
EXPOSE 8000 3005
ENV HOST=0.0.0.0 DATA=/data LOG_FORMAT=json
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD [".venv/bin/python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/sage/api/health', timeout=2)"]
ENTRYPOINT ["scripts/serve"]
