"""Value-model training: the objective, packed batches, the optimiser and the step. Arrays only."""
