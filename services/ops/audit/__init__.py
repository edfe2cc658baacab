"""The audit log: facts as leaves of a Merkle tree, so that nobody can change what was told without being found out."""
