"""What the user wrote: strict models, a loader with positions, environments, interpolation, schema export."""
