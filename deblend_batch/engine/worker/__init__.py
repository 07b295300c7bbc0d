"""What is done to a tile where its pixels are: cut, infer, reduce, commit."""
