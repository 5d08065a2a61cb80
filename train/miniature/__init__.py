"""How the shipped tiny models were made."""
