"""The demo: a real plugin package with several releases, the world it lives in, and stories told with it."""
