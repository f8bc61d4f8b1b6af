"""Step operators: they run the steps of a pipeline elsewhere than in the pipeline's own process."""
