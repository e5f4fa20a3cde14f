"""What a recipe would cost and do, before anything is spent: prices, compiled steps, the named
arms."""
