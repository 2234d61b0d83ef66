"""From shards to batches: an order that follows from a seed, files fetched whole, samples decoded, views made."""
