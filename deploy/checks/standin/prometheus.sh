#!/bin/sh
set -e
case "$*" in *--web.enable-otlp-receiver*) ;; *) echo "without the OTLP receiver" >&2; exit 1 ;; esac
ls /etc/prometheus/prometheus.yml /etc/prometheus/rules.yml
touch /prometheus/writable
exec nc -ll -p 9090 -e /answer
