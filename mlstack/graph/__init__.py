"""The desired state: digests of sources, environment identities, fingerprints, references and order."""
