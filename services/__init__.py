"""The five services. None imports another; they meet in the protos and on the bus."""
