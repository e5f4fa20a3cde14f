"""The process itself: its clock, its memory, its log lines, its standard streams."""
