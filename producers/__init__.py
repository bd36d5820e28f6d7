"""The world to Kafka: sources of transactions, drift scenarios, the replay."""
