#!/bin/sh
set -e
ls /otel-lgtm/grafana/conf/provisioning/dashboards/rust-runtime.yaml /otel-lgtm/grafana/conf/provisioning/datasources/rust-runtime.yaml /etc/dashboards/rust-runtime.json
touch /data/writable
nc -ll -p 9090 -e /answer &
nc -ll -p 3000 -e /answer &
until wget -q -O /dev/null "$PROMETHEUS_URL/-/ready"; do sleep 0.1; done
EXPORT_TO=$PROMETHEUS_URL/api/v1/otlp exec /otelcol --config=/collector.yaml
