"""What `stylegate learn` is made of: decisions that may be learned from, what is gained, the new policy, its page."""
