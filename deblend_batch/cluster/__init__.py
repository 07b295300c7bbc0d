"""What runs on Ray: the cluster and how it is joined, failures, metrics, and a bounded map over tasks."""
