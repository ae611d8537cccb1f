"""Checks the Kubernetes manifests against the API's own schemas and against the configurations that they mount."""

import re
import sys

import kubernetes_validate
import yaml
from catalogue import DEPLOY

KUBERNETES = "1.34"
FLEET = DEPLOY / "fleet"

wrong = []
documents = list(yaml.safe_load_all((FLEET / "kubernetes.yaml").read_text()))
maps = {entry["name"]: entry["files"] for entry in yaml.safe_load((FLEET / "kustomization.yaml").read_text())["configMapGenerator"]}
pinned = re.search(r"otel/opentelemetry-collector:\S+", (DEPLOY / "docker-compose.yml").read_text())[0]

for document in documents:
    who = f"{document['kind']} {document['metadata']['name']}"
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        wrong.append(f"{who}: {error.message} at {'.'.join(map(str, error.path))}")
    if "template" not in document.get("spec", {}):
        continue
    pod = document["spec"]["template"]["spec"]
    (container,), (volume,) = pod["containers"], pod["volumes"]
    if container["image"] != pinned:
        wrong.append(f"{who}: {container['image']}, but docker-compose.yml has {pinned}")
    (entry,) = maps[volume["configMap"]["name"]]
    key, file = entry.split("=")
    if f"--config={container['volumeMounts'][0]['mountPath']}/{key}" not in container["args"]:
        wrong.append(f"{who}: the Collector does not read {key}")
    # A variable that the configuration uses without a default must be set.
    given = {variable["name"] for variable in container["env"]}
    wrong += [f"{who}: {file} needs {name}" for name in re.findall(r"\$\{env:(\w+)\}", (FLEET / file).read_text()) if name not in given]

for each in wrong:
    print(f"kubernetes.yaml: {each}", file=sys.stderr)
if wrong:
    sys.exit(1)
print(f"kubernetes.yaml: {len(documents)} documents fit Kubernetes {KUBERNETES}")
