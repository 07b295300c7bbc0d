"""How the suite is shared by processes: whatever joins one Ray cluster stays in one of them."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

ON_RAY = (
    "tests/cli/test_json_logs.py",
    "tests/deploy/test_prometheus.py",
    "tests/deploy/test_slurm.py",
    "tests/engine/test_admission.py",
    "tests/engine/needs/test_pool.py",
    "tests/detect/test_field.py",
    "tests/cluster/test_failure.py",
    "tests/engine/test_faults_on_ray.py",
    "tests/engine/needs/test_memory.py",
    "tests/engine/test_nodes.py",
    "tests/engine/test_plan.py",
    "tests/engine/test_projected.py",
    "tests/engine/test_run_on_ray.py",
    "tests/jobs/",
    "tests/simulate/test_draw.py",
    "tests/simulate/test_fields.py",
    "tests/simulate/test_pairset.py",
    "tests/simulate/test_real.py",
    "tests/cluster/test_workers.py",
    "tests/storage_s3/test_planted_secret.py",
    "tests/test_demo.py",
    "tests/train/test_group.py",
)


OWN_RAY = ("tests/engine/test_autoscaling.py", "tests/test_readme_cluster.py")
"""Each of these starts a cluster of its own."""


class FewRayClusters(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives the tests of a file to one process, those of all files that share a Ray cluster to the same one.

    Those with a cluster of their own are in another one together: there are two clusters at a time, at most.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::", 1)[0]
        if path.startswith(ON_RAY):
            return "ray"
        return "own ray" if path.startswith(OWN_RAY) else path
