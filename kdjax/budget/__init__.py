"""What a step costs, and what a run has spent."""
