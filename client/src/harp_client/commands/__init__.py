"""The commands of `harp` that speak to a pool's scheduler."""
