"""Floor 4: one module per command. A command imports the rooms it needs only when it is called."""
