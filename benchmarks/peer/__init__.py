"""The arms of `benchmarks.trl_peer`: each trains one policy for a given time, in its own process."""
