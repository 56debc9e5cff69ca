"""Kubernetes: stages as Jobs, and what pools and endpoints are made of. Imported only when a pool has that target."""
