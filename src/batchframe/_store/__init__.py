"""The run on disk: folders, records, input files and the lease. Knows nothing of services."""
