"""Stand-ins for the import names of the earlier toolkits, which `finder.install` offers where they are absent."""
