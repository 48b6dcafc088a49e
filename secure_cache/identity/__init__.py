"""Floor 3: who speaks. Tokens in, verified identities out."""
