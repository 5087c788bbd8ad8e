"""Files that deploy a cluster to Kubernetes or to rented machines."""
