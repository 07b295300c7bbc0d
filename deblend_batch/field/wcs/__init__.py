"""Where pixels lie on the sky: a header's cards, checked, and their transforms."""
