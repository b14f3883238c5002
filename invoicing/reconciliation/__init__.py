"""What the gateway paid out, compared with what the books say it owes."""
