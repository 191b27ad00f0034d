import copy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_double import ApiDouble, api_double, cluster_at
from stretto_deploy.cluster import Cluster
from stretto_deploy.kustomize import render
from stretto_deploy.table import Table, load_table
from stretto_deploy.yamls import Manifest

# The seeded errors of the eval: programs beside the packages, found by their place.
sys.path.append(str(Path(__file__).resolve().parents[2] / "evals"))


@pytest.fixture(scope="session")
def table() -> Table:
    return load_table()


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[Manifest]]:
    return {
        "gpu": render("gpu", ("keda",)),
        "mtls": render("cpu-local", ("monitoring", "mtls")),
    }


@pytest.fixture
def gpu(rendered: dict[str, list[Manifest]]) -> list[Manifest]:
    """Our own manifests for GPUs with KEDA, to be spoilt."""
    return copy.deepcopy(rendered["gpu"])


@pytest.fixture
def mtls(rendered: dict[str, list[Manifest]]) -> list[Manifest]:
    """Our own manifests with TLS and monitoring, to be spoilt."""
    return copy.deepcopy(rendered["mtls"])


@pytest.fixture
def api() -> Iterator[tuple[ApiDouble, Cluster]]:
    """A cluster's API and our client of it."""
    with api_double() as (double, address):
        yield double, cluster_at(address)
