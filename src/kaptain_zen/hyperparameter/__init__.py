"""What a search looks through (`domains`) and how (`algorithms`)."""
