"""What the runs of a study share, each made or found once."""
