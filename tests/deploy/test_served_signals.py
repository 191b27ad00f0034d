"""What services are scaled by is on the page of a real server, with those labels, before anybody has called it."""

import os
import re
import subprocess
import sys
import urllib.request

from metric_expressions import selectors_of
from prometheus_client.parser import text_string_to_metric_families
from real_server import free_port, stop, wait_until_healthy
from stretto_deploy.objects.signals import expression
from stretto_deploy.table import Table


def page_of(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        text: str = page.read().decode()
    return text


async def test_every_signal_is_served_by_its_own_service(table: Table) -> None:
    port, metrics_port = free_port(), free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", "from stretto_client.cli.main import main; main()", "serve", "--port", str(port)],
        env={**os.environ, "STRETTO_GRPC_METRICS_PORT": str(metrics_port)},
        stderr=subprocess.DEVNULL,
    )
    try:
        await wait_until_healthy(f"127.0.0.1:{port}", process)
        families = text_string_to_metric_families(page_of(metrics_port))
        samples = [sample for family in families for sample in family.samples]
    finally:
        stop(process)
    for service in table.service:
        for signal in service.signals:
            query = expression(table, service, signal)
            for selector in selectors_of(query):
                wanted = dict(re.findall(r'(stage)="([^"]+)"', query))
                found = [s for s in samples if s.name == selector.metric and wanted.items() <= s.labels.items()]
                assert found, f"{service.name} is scaled by {query}, which it does not serve"
                if signal.kind == "in_flight":
                    assert all(sample.labels["method"].startswith("/") for sample in found)
