"""Ready-made training programs, which are also the reference for writing one."""
