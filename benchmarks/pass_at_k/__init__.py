"""The parts of `benchmarks.code_benchmarks`: what a model is asked, its samples, their verdicts, pass@k."""
