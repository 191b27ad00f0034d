"""Whether manifests are right before a cluster sees them: schemas, sense, and the rules of this house."""
