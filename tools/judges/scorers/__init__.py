"""What runs inside the environment of a tool: reads masks, asks the tool, prints its answers. No brainsegnet here."""
