"""Checks a resolved compose file on standard input for what Compose itself does not check."""

import json
import os
import sys

wrong = []
services = json.load(sys.stdin)["services"]
for name, service in services.items():
    image = service.get("image", "")
    if "build" not in service and (":" not in image or image.endswith(":latest")):
        wrong.append(f"{name}: the image {image} has no version")
    wrong += [f"{name}: port {port['target']} is not on 127.0.0.1 alone" for port in service.get("ports", []) if port.get("host_ip") != "127.0.0.1"]
    wrong += [f"{name}: no {limit}" for limit in ("mem_limit", "cpus", "pids_limit") if not service.get(limit)]
    wrong += [f"{name}: a password" for key in service.get("environment", {}) if "PASSWORD" in key]
    wrong += [f"{name}: {volume['source']} does not exist" for volume in service.get("volumes", []) if volume["type"] == "bind" and not os.path.exists(volume["source"])]
    if "healthcheck" not in service and "opentelemetry-collector" not in image:  # its image has no program other than the Collector
        wrong.append(f"{name}: no health check")
for each in wrong:
    print(f"{sys.argv[1]}: {each}", file=sys.stderr)
if wrong:
    sys.exit(1)
print(f"{sys.argv[1]}: {', '.join(services)}: versions, 127.0.0.1, limits, health checks")
