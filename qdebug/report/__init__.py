"""Reports: diagnosis of every layer, limits, and the files that hold a report."""
