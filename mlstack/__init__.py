"""Infrastructure as code for machine learning, worked through Git."""

__version__ = "0.1.0"
