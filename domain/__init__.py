"""What is true whatever the contract and whatever the database."""
