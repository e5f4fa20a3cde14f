"""Dry runs of a recipe before anything is spent: prices, compiled steps, the named arms."""
