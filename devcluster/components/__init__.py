"""The parts that clusters are made of, one module each."""
