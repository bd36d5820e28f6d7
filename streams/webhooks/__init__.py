"""Webhooks: what the logs say, delivered to HTTP endpoints that the settings name."""
