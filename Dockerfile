# Images with Moonbridge and Lua 5.4, from the binary rock: `make image` builds both. To serve /app/app.lua:
#
#     docker run --publish 8080:8080 --volume "$PWD:/app:ro" moonbridge:1.0.0-debian
#
# The script has to listen at "0.0.0.0". SIGTERM, which `docker stop` sends, ends the server gracefully.

FROM debian:bookworm-slim AS debian
RUN apt-get update && apt-get install --yes --no-install-recommends lua5.4 unzip \
  && rm -rf /var/lib/apt/lists/*
COPY tools/unpack-rock moonbridge-1.0.0-1.linux-*.rock /tmp/moonbridge/
RUN sh /tmp/moonbridge/unpack-rock /tmp/moonbridge/*.linux-"$(uname -m)".rock /usr/local 5.4 gnu \
  && moonbridge --version && rm -r /tmp/moonbridge
WORKDIR /app
USER 1000:1000
EXPOSE 8080
ENTRYPOINT ["moonbridge"]
CMD ["/app/app.lua"]

FROM alpine:3.22 AS alpine
RUN apk add --no-cache lua5.4
COPY tools/unpack-rock moonbridge-1.0.0-1.linux-*.rock /tmp/moonbridge/
RUN sh /tmp/moonbridge/unpack-rock /tmp/moonbridge/*.linux-"$(uname -m)".rock /usr/local 5.4 musl \
  && moonbridge --version && rm -r /tmp/moonbridge
WORKDIR /app
USER 1000:1000
EXPOSE 8080
ENTRYPOINT ["moonbridge"]
CMD ["/app/app.lua"]
