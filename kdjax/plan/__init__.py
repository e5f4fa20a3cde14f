"""Plans: what each arm would reach at budgets nobody has spent."""
