"""Features to predictions: RFM features, targets, training, evaluation, registry."""
