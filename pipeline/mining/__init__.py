"""Work: the plan, the units, who runs them, what became of them, and how long it will take."""
