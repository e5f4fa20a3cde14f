"""From raw text to a prepared corpus: tokenised, packed, sharded."""
