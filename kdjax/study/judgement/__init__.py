"""What a study's measurements come to: facts, endpoints and verdicts."""
