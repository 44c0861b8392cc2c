"""What requests cost: prices, token counts, one ledger and its caps."""
