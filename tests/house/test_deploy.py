"""The deployment files: valid by their schemas, and what they describe, run as plain processes."""

import json
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from compose_spec import PyCompose
from kubernetes_validate import validate

from emulator.settings import Settings
from tests.support.process import free_port
from tests.support.server import PLAIN, REPOSITORY, Server, eventually, running_server

DEPLOY = REPOSITORY / "deploy"
KUBERNETES = sorted(DEPLOY.glob("kubernetes/*.yaml"))
KUBERNETES_VERSION = "1.31"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def load(path: Path) -> dict[str, Any]:
    """Return the one document of a YAML file."""
    (document,) = yaml.safe_load_all(path.read_text())
    assert isinstance(document, dict)
    return document


def kubernetes(kind: str) -> dict[str, Any]:
    """Return the object of a kind."""
    (found,) = [load(path) for path in KUBERNETES if load(path)["kind"] == kind]
    return found


# --------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Deployment", "Service", "HorizontalPodAutoscaler"])
def test_kubernetes_objects_are_valid(kind: str) -> None:
    """Every object keeps to its schema, strictly; that of PodMonitor is in no Python package."""
    validate(kubernetes(kind), KUBERNETES_VERSION, strict=True)


def test_kubernetes_objects_name_each_other() -> None:
    """Selectors, ports and the scaled object are those of the Deployment."""
    deployment = kubernetes("Deployment")
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    service, monitor = kubernetes("Service")["spec"], kubernetes("PodMonitor")["spec"]
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert service["selector"] == pod["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert {port["targetPort"] for port in service["ports"]} == ports
    assert {(m["port"], m["path"]) for m in monitor["podMetricsEndpoints"]} == {
        ("http", "/metrics")
    }
    target = kubernetes("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])


def emulators() -> dict[str, dict[str, str]]:
    """Return the variables that the containers of each manifest have."""
    pod = kubernetes("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    compose = load(DEPLOY / "compose.yaml")["x-emulator"]
    return {
        "kubernetes": {variable["name"]: variable["value"] for variable in container["env"]},
        "compose": compose["environment"],
    }


@pytest.mark.parametrize("manifest", ["kubernetes", "compose"])
def test_variables_are_settings(manifest: str) -> None:
    """A manifest sets workers and more by variables, each a setting or BentoML's own."""
    variables = emulators()[manifest]
    assert variables["EMULATOR_WORKERS"] == "1"
    settings = {name.removeprefix("EMULATOR_").lower() for name in variables}
    assert settings <= {*Settings.model_fields, "bentoml_home"}


def test_limits_of_compose_count() -> None:
    """What compose is given as RPM and TPM are the settings of the same names."""
    variables = emulators()["compose"]
    for name in ("RPM", "TPM"):
        assert variables[f"EMULATOR_{name}"].startswith(f"${{{name}:-")


def test_pod_may_do_no_more_than_it_must() -> None:
    """The pod runs as a user by number, with a read-only root and no capabilities."""
    pod = kubernetes("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (mount,) = container["volumeMounts"]
    (volume,) = pod["volumes"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 1034,
        "runAsGroup": 1034,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (mount["name"], mount["mountPath"]) == (volume["name"], "/tmp")  # noqa: S108
    assert emulators()["kubernetes"]["BENTOML_HOME"].startswith(mount["mountPath"])


def test_compose_may_do_no_more_than_it_must() -> None:
    """Compose runs the emulators as the pod is run."""
    compose = load(DEPLOY / "compose.yaml")["x-emulator"]
    assert compose["user"] == "1034:1034"
    assert compose["read_only"] is True
    assert compose["cap_drop"] == ["ALL"]
    assert compose["security_opt"] == ["no-new-privileges:true"]
    (folder,) = compose["tmpfs"]
    assert emulators()["compose"]["BENTOML_HOME"].startswith(folder)


def test_streams_have_a_minute_to_end() -> None:
    """Compose, Kubernetes and the README's line let streams go on for 60 s after a stop."""
    pod = kubernetes("Deployment")["spec"]["template"]["spec"]
    before = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] - before == 60
    assert load(DEPLOY / "compose.yaml")["x-emulator"]["stop_grace_period"] == "60s"
    (line,) = re.findall(r"^docker run .*", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    assert "--stop-timeout 60 " in line


def test_every_emulator_is_looked_after() -> None:
    """Each manifest asks whether an emulator is ready, and limits its memory."""
    (container,) = kubernetes("Deployment")["spec"]["template"]["spec"]["containers"]
    compose = load(DEPLOY / "compose.yaml")["x-emulator"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert "/readyz" in compose["healthcheck"]["test"][-1]
    assert container["resources"]["limits"]["memory"] == "2Gi"
    assert compose["mem_limit"] == "2g"


def test_compose_is_valid() -> None:
    """The compose file keeps to the Compose specification, and what it mounts is there."""
    compose = load(DEPLOY / "compose.yaml")
    assert len(PyCompose.from_yaml(yaml.safe_dump(compose)).service_names()) == len(
        compose["services"]
    )
    mounts = [mount for s in compose["services"].values() for mount in s.get("volumes", ())]
    assert all((DEPLOY / mount.split(":")[0]).exists() for mount in mounts)


def test_prometheus_and_nginx_know_every_emulator_of_compose() -> None:
    """An emulator that is added must be added in three places."""
    services = load(DEPLOY / "compose.yaml")["services"]
    addresses = sorted(f"{name}:3000" for name in services if name.startswith("emulator-"))
    servers = services["nginx"]["environment"]["NGINX_SERVERS"]
    (scrape,) = load(DEPLOY / "prometheus/prometheus.yml")["scrape_configs"]
    assert re.findall(r"server (\S+);", servers) == addresses
    assert scrape["static_configs"] == [{"targets": addresses}]


def test_every_metric_of_the_dashboard_exists(server: Server) -> None:
    """The dashboard asks for what the emulator tells, from the data source that is provisioned."""
    dashboard = json.loads((DEPLOY / "grafana/dashboards/emulator.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    (source,) = load(DEPLOY / "grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert {target["datasource"]["uid"] for target in targets} == {source["uid"]}

    chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    for body in (chat, {}):
        PLAIN.post(f"{server.url}/v1/chat/completions", json=body)
    metrics = PLAIN.get(f"{server.url}/metrics").text
    known = set(re.findall(r"^(\w+)[{ ]", metrics, re.MULTILINE))
    asked = {
        name
        for target in targets
        for name in re.findall(r"(?:bentoml|openai_emulator)_\w+", target["expr"])
    }
    # Told of keys with names alone.
    known.add("openai_emulator_rate_limit_remaining")
    assert asked <= known


# --------------------------------------------------------------------------------------
# nginx in front of two emulators
# --------------------------------------------------------------------------------------


@contextmanager
def running_nginx(folder: Path, *emulators: Server) -> Iterator[str]:
    """Run nginx with the template of the compose file; yield its address."""
    assert NGINX is not None
    port = free_port()
    config = (DEPLOY / "nginx/nginx.conf.template").read_text()
    servers = " ".join("server {}:{};".format(*emulator.address) for emulator in emulators)
    config = config.replace("${NGINX_SERVERS}", servers)
    config = config.replace("${NGINX_LISTEN}", f"127.0.0.1:{port}")
    (folder / "nginx.conf").write_text(config)
    log = folder / "nginx.log"
    directives = f"daemon off; pid {folder}/nginx.pid; error_log {log};"
    command = [NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", str(log), "-g", directives]
    process = subprocess.Popen(command)  # noqa: S603 - our own command line
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            time.sleep(0.05)
            if process.poll() is not None:
                raise RuntimeError(f"nginx has ended: {log.read_text()}")
            try:
                PLAIN.get(f"{url}/health")
                break
            except httpx.TransportError:
                continue
        yield url
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def two_emulators(one_worker: Server) -> Iterator[tuple[Server, Server]]:
    """Yield two emulators, of which the first may be stopped."""
    with running_server("--arg", "workers=1") as first:
        yield first, one_worker


def stream(url: str, ttft_ms: float, itl_ms: float, length: int) -> list[float]:
    """Return when the reads of a stream came, in seconds after the request; check its tokens."""
    headers = {"X-TTFT-MS": str(ttft_ms), "X-ITL-MS": str(itl_ms), "X-OUTPUT-LENGTH": str(length)}
    chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    arrivals_s, body, start_s = [], b"", time.perf_counter()
    with (
        httpx.Client(trust_env=False, timeout=300) as client,
        client.stream("POST", f"{url}/v1/chat/completions", json=chat, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        for data in answer.iter_raw():
            arrivals_s.append(time.perf_counter() - start_s)
            body += data
    assert body.count(b'"delta":{"content":"') == length
    assert body.endswith(b"data: [DONE]\n\n")
    return arrivals_s


@pytest.mark.slow
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx-light)")
def test_nginx_passes_tokens_on_and_loses_none(
    tmp_path: Path, two_emulators: tuple[Server, Server]
) -> None:
    """Tokens come through one by one, and a stopped emulator ends no stream.

    While streams keep starting, one emulator is stopped: those it had begun end there, and all
    later ones at the other.
    """
    stopped, _ = two_emulators
    with running_nginx(tmp_path, *two_emulators) as url, ThreadPoolExecutor(40) as pool:
        arrivals_s = stream(url, ttft_ms=100, itl_ms=50, length=20)
        assert len(arrivals_s) >= 5  # a slow client reads some at once
        assert arrivals_s[0] >= 0.1
        assert arrivals_s[-1] - arrivals_s[0] > 0.4

        enough = threading.Event()

        streams = [0] * 12

        def keep_streaming(user: int) -> None:
            while not enough.is_set():
                stream(url, ttft_ms=50, itl_ms=20, length=40)
                streams[user] += 1

        users = [pool.submit(keep_streaming, user) for user in range(len(streams))]
        try:
            assert eventually(lambda: min(streams) >= 1)
            assert stopped.process is not None
            stopped.process.send_signal(signal.SIGTERM)
            stopped.process.wait(30)
            before = list(streams)
            assert eventually(
                lambda: all(now > then for now, then in zip(streams, before, strict=True))
            )
        finally:
            enough.set()
        for user in users:
            user.result()
        assert stopped.log().count(" tokens=40/40 ") >= 6
