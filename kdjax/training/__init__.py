"""Training: the fused step, the arm, the run."""
