"""What a run is given, looked at before any work: survey, tables, weights, pair index, workload."""
