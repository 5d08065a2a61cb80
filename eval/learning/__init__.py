"""What `stylegate learn` is made of: decisions that may be learned from, what is gained, the new policy, its page."""

LEARNT = "learnt"  # the folder of a lot's folder that holds what was learned
