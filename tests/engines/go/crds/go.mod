module mlstack.invalid/tests/engines/crds

go 1.24.0

// Nothing of them is built: their folders hold definitions of types for a Kubernetes API server.
require (
	sigs.k8s.io/gateway-api v1.4.1
	sigs.k8s.io/kueue v0.14.0
)
