"""The pages, the dashboard and the autoscaler of the engine, held against its code."""

import json
import re

from kubernetes_validate import validate
from prometheus_client import CollectorRegistry

from emulator.engine.config import EngineConfig, presets
from emulator.engine.metrics import EngineMetrics, Metrics
from emulator.engine.runner import TimedSequence
from emulator.engine.scheduler import Scheduler
from emulator.metrics import Tally
from tests.engine.test_engine import ROUND
from tests.house.test_deploy import DEPLOY, KUBERNETES_VERSION, kubernetes, load
from tests.support.documents import names, page, table
from tests.support.server import REPOSITORY


def metric_names() -> set[str]:
    """Return the names of the engine's metrics, as /metrics has them."""
    registry = CollectorRegistry()
    EngineMetrics(
        Scheduler[TimedSequence](ROUND), Tally(), "0", Metrics(ROUND.max_model_len, registry)
    )
    return {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in registry.collect()
    }


def test_table_of_metrics() -> None:
    """The page on metrics has each of the engine's, and no other."""
    shown = {
        name
        for row in table(page("docs/metrics.md").text, "metric of the engine")
        for name in names(row[0])
    }
    assert {name for name in shown if name.startswith("vllm:")} == metric_names()


def test_table_of_engines() -> None:
    """The page on the engine names every preset."""
    rows = table(page("docs/engine.md").text, "engine")
    assert sorted(name for row in rows for name in names(row[0])) == presets()


def test_table_of_keys() -> None:
    """The page has every key of an engine's file with its default."""
    rows = table(page("docs/engine.md").text, "key")
    shown = {name: default for keys, default, _ in rows for name in names(keys)}
    fields = EngineConfig.model_fields
    defaults = {
        name: "" if field.is_required() else json.dumps(field.default)
        for name, field in fields.items()
    }
    assert shown == defaults


def test_dashboard() -> None:
    """The dashboard asks for metrics of the engine that there are."""
    dashboard = json.loads((DEPLOY / "grafana/dashboards/emulator.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for text in expressions for name in re.findall(r"vllm:\w+", text)}
    assert asked
    assert {name.removesuffix("_bucket") for name in asked} <= metric_names()


def test_autoscaler() -> None:
    """The autoscaler on waiting requests is valid and takes the place of the other one."""
    file = DEPLOY / "kubernetes/engine/autoscaler.yaml"
    autoscaler, other = load(file), kubernetes("HorizontalPodAutoscaler")
    validate(autoscaler, KUBERNETES_VERSION, strict=True)
    assert autoscaler["metadata"] == other["metadata"]
    assert autoscaler["spec"]["scaleTargetRef"] == other["spec"]["scaleTargetRef"]
    assert set(re.findall(r"vllm:\w+", file.read_text())) <= metric_names()


def test_bento_holds_the_engines() -> None:
    """The presets are part of what is built."""
    assert '"engines/*.yaml"' in (REPOSITORY / "bentofile.yaml").read_text()
