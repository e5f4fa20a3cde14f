"""From raw text and labelled files to batches."""
