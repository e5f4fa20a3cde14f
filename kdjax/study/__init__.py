"""A whole study: its runs, results and report."""
