"""Kafka to decisions: windows, detectors, policy, and the agents that run them."""
