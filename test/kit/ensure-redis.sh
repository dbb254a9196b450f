#!/bin/sh
# The tests run against a real Redis server. Use the one on PATH (or REDIS_SERVER), else install Debian's package.
set -eu
if [ -n "${REDIS_SERVER:-}" ] && command -v "$REDIS_SERVER" >/dev/null 2>&1; then exit 0; fi
if command -v redis-server >/dev/null 2>&1 && command -v redis-cli >/dev/null 2>&1; then exit 0; fi
echo "redis-server not found on PATH: installing Debian's package redis-server" >&2
if ! command -v apt-get >/dev/null 2>&1; then
  echo "Cannot install redis-server: no apt-get here. Install Redis 7 or Valkey, or set REDIS_SERVER=/path/to/redis-server." >&2
  exit 1
fi
as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo"
$as_root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends redis-server >/dev/null
command -v redis-server >/dev/null
