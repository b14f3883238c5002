"""What was billed in advance becomes revenue as it is delivered."""
