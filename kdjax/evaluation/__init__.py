"""What a model is worth: held-out loss, probes, fine-tuning, and verdicts on pairs of arms."""
