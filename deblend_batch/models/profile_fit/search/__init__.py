"""From stamps and given positions to the maximum of the posterior, and what it leaves over."""
