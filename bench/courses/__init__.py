"""What retraining is worth: streams, policies, and the best that hindsight could have done."""
