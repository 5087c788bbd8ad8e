"""Where a run runs: submission to a Ray cluster, a cluster on this machine, the files to deploy one."""
