"""What settles invoices: payments, customer credit and write-offs; how they are posted, and what they leave due."""
