"""Deliveries: each event on its way to each endpoint that wants it, until it arrived or its attempts are used up."""
