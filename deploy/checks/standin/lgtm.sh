#!/bin/sh
set -e
ls /otel-lgtm/grafana/conf/provisioning/dashboards/rust-runtime.yaml /otel-lgtm/grafana/conf/provisioning/datasources/rust-runtime.yaml /etc/dashboards/rust-runtime.json /etc/dashboards/rust-profiles.json
touch /data/writable
nc -ll -p 9090 -e /answer &
nc -ll -p 3000 -e /answer &
until wget -q -O /dev/null "$PROMETHEUS_URL/-/ready"; do sleep 0.1; done
nc -ll -p 4040 -e /answer &
EXPORT_TO=$PROMETHEUS_URL/api/v1/otlp PROFILES_TO=http://127.0.0.1:4040 exec /otelcol --config=/collector.yaml --feature-gates=service.profilesSupport
