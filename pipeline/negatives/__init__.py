"""Which proposals are negatives."""
