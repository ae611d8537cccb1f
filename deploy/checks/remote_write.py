"""Runs deploy/fleet/prometheus.yml in a real Prometheus. All that it scrapes and does not drop must arrive in VictoriaMetrics by remote write.

Debian's Prometheus is built without the OTLP receiver, so it scrapes a page of metrics in place of the gateways."""

import http.server
import os
import tempfile
import threading

import yaml

from catalogue import DEPLOY
from stack import free_port, running, until, victoria

BOUNDS = "0.0001 0.00025 0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 +Inf".split()
KEPT = {"0.0001", "0.0005", "0.005", "0.05", "0.1", "0.5", "2.5", "10", "+Inf"}
PAGE = "# TYPE tokio_schedule_delay_seconds histogram\n" + "".join(f'tokio_schedule_delay_seconds_bucket{{le="{bound}"}} {at}\n' for at, bound in enumerate(BOUNDS))


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, *_):
        pass


page = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
threading.Thread(target=page.serve_forever, daemon=True).start()
with tempfile.TemporaryDirectory() as folder, victoria(folder) as engine:
    config = yaml.safe_load((DEPLOY / "fleet" / "prometheus.yml").read_text())
    config["global"]["scrape_interval"] = "1s"
    config["rule_files"] = [str(DEPLOY / "fleet" / file) for file in config["rule_files"]]
    config["remote_write"][0]["url"] = f"{engine.base}/api/v1/write"
    config["remote_write"][0]["queue_config"]["batch_send_deadline"] = "1s"
    config["scrape_configs"] = [{"job_name": "gateway", "static_configs": [{"targets": [f"127.0.0.1:{page.server_port}"]}]}]
    with open(f"{folder}/prometheus.yml", "w") as file:
        yaml.safe_dump(config, file)
    command = [os.environ["PROMETHEUS"], f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{free_port()}"]
    with running(command, f"{folder}/prometheus.log"):
        query = 'tokio_schedule_delay_seconds_bucket{site="main"}'
        arrived = until(lambda: {line["metric"]["le"] for line in engine.now(query)}, "remote write", 60)
        got = {bound.removesuffix(".0") for bound in arrived}
        assert got == KEPT, f"buckets {sorted(got)} arrived, expected {sorted(KEPT)}"
print(f"remote write: {len(got)} of {len(BOUNDS)} buckets arrived, as fleet/prometheus.yml says")
