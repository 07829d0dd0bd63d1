"""The verbs: each composes the rooms below, and only here do disk and network meet."""
