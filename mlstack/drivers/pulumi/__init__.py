"""The engine that makes stacks: Pulumi's command line, driven with programs that are data."""
