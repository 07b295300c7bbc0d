"""A cluster that a process has joined: what it has, and that it is left as it was."""

from __future__ import annotations

import os

import pytest
import ray

from deblend_batch.cluster.connection import connected
from deblend_batch.engine.crew.on_ray import cluster_nodes

pytestmark = pytest.mark.usefixtures("cluster")


def test_a_cluster_that_is_joined_already_is_used_and_left_as_it_was() -> None:
    with connected() as resources:
        assert (resources["CPU"], resources["GPU"]) == (2, 2)
    assert ray.is_initialized()
    assert os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] == "1"


def test_nodes_of_the_cluster() -> None:
    (node,) = cluster_nodes()
    assert (node.cpus, node.gpus) == (2, 2)
    assert node.memory > 1e8
