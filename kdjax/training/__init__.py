"""Training: the arm, the step, the run."""
