"""`prunella mcp`: the plane for AI agents. They read, and they may ask people; they never act and never approve."""
