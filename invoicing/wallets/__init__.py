"""Prepaid credits: what customers put in, what invoices burn, and what expires."""
