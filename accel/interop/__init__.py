"""Optional exits to other tools: their formats, and their names for what we measure."""
