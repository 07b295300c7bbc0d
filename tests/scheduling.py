"""How the suite is shared by processes: one of them does all that needs Ray, so that there is one cluster."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

# Two clusters at once would not do: a job finds its own by a note that a machine has one of.
ON_RAY = (
    "tests/cli/test_json_logs_on_ray.py",
    "tests/cluster/test_connection.py",
    "tests/cluster/test_failure.py",
    "tests/cluster/test_workers.py",
    "tests/deploy/test_prometheus.py",
    "tests/detect/test_field_on_ray.py",
    "tests/engine/test_autoscaling.py",
    "tests/engine/test_faults_on_ray.py",
    "tests/engine/test_nodes.py",
    "tests/engine/test_projected_on_ray.py",
    "tests/engine/test_run_on_ray.py",
    "tests/jobs/",
    "tests/simulate/test_on_ray.py",
    "tests/storage_s3/test_planted_secret.py",
    "tests/test_demo.py",
    "tests/test_readme_cluster.py",
    "tests/train/test_group.py",
)


class OneRayCluster(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives the tests of a file to one process, and all that need Ray to the same one."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::", 1)[0]
        return "Ray" if path.startswith(ON_RAY) else path
