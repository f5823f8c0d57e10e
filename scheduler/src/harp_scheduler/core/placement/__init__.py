"""Which slices of which devices a demand gets: pure decisions over what is known of the pool."""
