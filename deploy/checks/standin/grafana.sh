#!/bin/sh
set -e
ls /etc/grafana/provisioning/datasources/prometheus.yml /etc/grafana/provisioning/dashboards/rust-runtime.yml "$GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"
touch /var/lib/grafana/writable /tmp/writable
# The data source must answer at the provisioned address.
wget -q -O /dev/null "$PROMETHEUS_URL/-/ready"
echo "data source every ${EXPORT_INTERVAL:?}"
exec nc -ll -p 3000 -e /answer
