"""What a process shows over HTTP: its metrics, its health, and the live page."""
