"""IP-MOT: tracking by query with learnt instance prompts."""
