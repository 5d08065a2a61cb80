"""Making LoRAs."""
