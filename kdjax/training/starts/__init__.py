"""A student's first parameters: random, or cut out of its teacher by pruning or projection."""
