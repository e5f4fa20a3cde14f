"""The report's figures, a file each: an `<svg>`, or None where a study has nothing to show."""
