#!/bin/sh
set -e
ls /etc/grafana/provisioning/datasources/prometheus.yml /etc/grafana/provisioning/datasources/pyroscope.yml /etc/grafana/provisioning/dashboards/rust-runtime.yml "$GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"
touch /var/lib/grafana/writable /tmp/writable
# The data sources must answer at the provisioned addresses.
wget -q -O /dev/null "$PROMETHEUS_URL/-/ready"
wget -q -O /dev/null "$PYROSCOPE_URL/ready"
echo "data source every ${EXPORT_INTERVAL:?}"
exec nc -ll -p 3000 -e /answer
