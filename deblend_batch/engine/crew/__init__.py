"""Who measures tiles: actors of Ray, or processes of this machine, behind one narrow protocol."""
