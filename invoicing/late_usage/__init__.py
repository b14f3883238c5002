"""Usage that arrived after its period was billed: adjusted, billed again or written off, as the policy says."""
