"""What a data scientist holds: the model, its record, and the five ports that it needs."""
