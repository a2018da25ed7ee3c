"""paywatch: from a Stellar operation to a signed webhook, exactly once."""
