"""What comes out: the report, a table for people, one page with pictures."""
