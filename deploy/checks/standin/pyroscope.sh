#!/bin/sh
set -e
case "$*" in *-usage-stats.enabled=false*) ;; *) echo "it reports its use" >&2; exit 1 ;; esac
touch /data/writable /tmp/writable
exec nc -ll -p 4040 -e /answer
