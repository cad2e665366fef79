"""Running a source: its parts measured by threads or a cluster, merged into a report."""
