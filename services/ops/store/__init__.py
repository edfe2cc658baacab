"""Every SQL statement of ops."""
