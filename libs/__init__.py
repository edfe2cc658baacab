"""What services share: `common` for the plane, `agent` for the other side of the wire."""
