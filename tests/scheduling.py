"""How the suite is shared by processes: the files that need Ray are two chains, each with one cluster."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

CHAINS = {
    "runs on Ray": (
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
        "tests/engine/test_projected_on_ray.py",
        "tests/engine/test_run_on_ray.py",
        "tests/simulate/test_draw.py",
        "tests/simulate/test_fields.py",
        "tests/simulate/test_pairset.py",
        "tests/simulate/test_real.py",
        "tests/cluster/test_workers.py",
        "tests/storage_s3/test_planted_secret.py",
        "tests/test_demo.py",
    ),
    "jobs and clusters": (
        "tests/engine/test_autoscaling.py",
        "tests/jobs/",
        "tests/test_readme_cluster.py",
        "tests/train/test_group.py",
    ),
}
ON_RAY = tuple(path for paths in CHAINS.values() for path in paths)


class FewRayClusters(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives the tests of a file to one process, and those of a chain to the same one."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::", 1)[0]
        chains = (name for name, paths in CHAINS.items() if path.startswith(paths))
        return next(chains, path)
