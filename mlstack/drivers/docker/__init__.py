"""Docker: images, and stages and endpoints in containers."""
