"""What is measured of a capability: truthfulness, harmlessness, fairness; one file each."""
