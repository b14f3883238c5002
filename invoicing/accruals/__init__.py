"""What was used and is not billed yet, as revenue of the month it was used in."""
