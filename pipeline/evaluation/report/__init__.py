"""The report of an evaluation: its data, a text table, and an HTML page with pictures."""
