"""What a run writes down: figures of its steps, its journal, TensorBoard, trackers."""
