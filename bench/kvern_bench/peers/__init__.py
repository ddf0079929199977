"""Who is measured, one file each. Each peer is a context manager: entering starts it, leaving stops it."""
