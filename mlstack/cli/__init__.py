"""One module per command; the only place that wires things together, and the only error boundary."""
