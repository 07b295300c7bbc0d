"""The product: schema, flags, shards, and what is made of them."""
