"""What at least two services need, one noun per file."""
