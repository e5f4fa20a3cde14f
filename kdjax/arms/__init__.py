"""The arms of a recipe and what each is charged before its first step, from settings alone."""
